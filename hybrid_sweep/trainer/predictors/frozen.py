"""Frozen: the control that never moves a weight in Predict, as the Rust library in truth did."""

from __future__ import annotations

import torch
from torch import Tensor

from hybrid_sweep.trainer.predictors.base import Predictor


class Frozen(Predictor):
    """A zero displacement: whatever a run with it reaches, its real steps reached alone."""

    def observe(self) -> None:
        """Count the real step that just ended."""
        self.observed += 1

    def direction(self) -> list[Tensor]:
        """Return zeros."""
        return [torch.zeros_like(p) for p in self.groups.parameters]
