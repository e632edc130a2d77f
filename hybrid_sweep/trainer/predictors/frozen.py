"""Frozen: the control that never moves a weight in Predict, as the Rust library in truth did."""

from __future__ import annotations

import torch
from torch import Tensor

from hybrid_sweep.trainer.predictors.base import Linear


class Frozen(Linear):
    """A zero displacement: whatever a run with it reaches, its real steps reached alone.

    Stable wherever plain training is. Memory: none; cost: none in a real step.
    """

    def direction(self) -> Tensor:
        """Return zeros [n]."""
        return torch.zeros_like(self.groups.vector)
