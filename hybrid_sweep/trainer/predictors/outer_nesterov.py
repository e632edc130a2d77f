"""OuterNesterov: the momentum of whole Full-phase displacements, looking one phase ahead."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hybrid_sweep.trainer.predictors.base import LayerGroups
from hybrid_sweep.trainer.predictors.outer import OuterMomentum


class OuterNesterov(OuterMomentum):
    """v̂ = μm + (1−μ) d/K, bias-corrected: the newest displacement d counts once more than in m.

    Nesterov's form of the outer step (single-worker DiLoCo; SNOO, 2510.15830). It turns faster than
    `outer_momentum` and so is stable less far: for H/K up to 1.6 (β 0.97, K = 20) or 2.7 (K = 10). Memory:
    four copies of the weights (m, d/K, last direction, start of the phase). Cost: three passes a cycle, none
    in a real step.
    """

    def __init__(self, groups: LayerGroups, decay: float, full_steps: int) -> None:
        super().__init__(groups, decay, full_steps)
        self._newest = [torch.zeros_like(p) for p in groups.parameters]
        self._keep = 0.0  # μ of the newest phase

    def direction(self) -> list[Tensor]:
        """Return the mean displacement of a real step, as fresh tensors."""
        weight = self._keep * self._weight + (1 - self._keep)
        ahead = torch._foreach_mul(self._momentum, self._keep / weight)
        torch._foreach_add_(ahead, self._newest, alpha=(1 - self._keep) / weight)
        return list(ahead)

    def _close(self, displacement: list[Tensor], steps: int) -> None:
        super()._close(displacement, steps)
        if steps:
            self._keep = self.decay**steps
            self._newest = list(torch._foreach_mul(displacement, 1 / steps))

    def state_dict(self) -> dict[str, Any]:
        """Return every buffer, copied where it is written into."""
        return {**super().state_dict(), "newest": self._newest, "keep": self._keep}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state)
        self._newest = self._here(state["newest"])
        self._keep = state["keep"]
