"""OuterMomentum: the momentum of whole Full-phase displacements."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hybrid_sweep.trainer.predictors.base import LayerGroups, Linear


class OuterMomentum(Linear):
    """m ← μm + (1−μ) d/K once a Full phase of K real steps with displacement d, μ = β^K, bias-corrected.

    The block form of the EMA of updates (predictive-training §4g): every step of a phase weighs the same.
    Stable for H/K up to 3.4 (β 0.97, K = 20) or 6.6 (K = 10). Memory: three copies of the weights (m, last
    direction, start of the phase). Cost: two passes over the weights a cycle, none in a real step.
    """

    def __init__(self, groups: LayerGroups, decay: float, full_steps: int) -> None:
        super().__init__(groups, decay, full_steps)
        self._momentum = [torch.zeros_like(p) for p in groups.parameters]
        self._weight = 0.0

    @property
    def ready(self) -> bool:
        """Whether a Full phase has been taken in."""
        return self._weight > 0

    def direction(self) -> list[Tensor]:
        """Return the mean displacement of a real step, as fresh tensors."""
        return list(torch._foreach_mul(self._momentum, 1 / self._weight if self._weight else 0.0))

    def _close(self, displacement: list[Tensor], steps: int) -> None:
        if steps == 0:
            return
        keep = self.decay**steps
        torch._foreach_mul_(self._momentum, keep)
        torch._foreach_add_(self._momentum, displacement, alpha=(1 - keep) / steps)
        self._weight = keep * self._weight + (1 - keep)

    def state_dict(self) -> dict[str, Any]:
        """Return every buffer, copied."""
        momentum = [t.clone() for t in self._momentum]
        return {**super().state_dict(), "momentum": momentum, "weight": self._weight}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state)
        self._momentum = [t.clone() for t in self._here(state["momentum"])]
        self._weight = state["weight"]
