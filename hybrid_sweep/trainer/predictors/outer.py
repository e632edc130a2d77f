"""OuterMomentum: the momentum of whole Full-phase displacements."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hybrid_sweep.trainer.layer_groups import LayerGroups
from hybrid_sweep.trainer.predictors.base import Linear


class OuterMomentum(Linear):
    """m ← μm + (1−μ) d/K once a Full phase of K real steps with displacement d, μ = β^K, bias-corrected.

    The block form of the EMA of updates (docs/design-notes.md): every step of a phase weighs the same.
    Stable for H/K up to 3.4 (β 0.97, K = 20) or 6.6 (K = 10). Memory: two copies of the weights (m and the
    start of the phase). Cost: two passes over the weights a cycle, none in a real step.
    """

    copied = ("momentum", "begin")

    def __init__(self, groups: LayerGroups, decay: float, full_steps: int) -> None:
        super().__init__(groups, decay, full_steps)
        self._momentum = torch.zeros_like(groups.vector)
        self._weight = 0.0
        self._begin = groups.vector.clone()  # of the Full phase

    @property
    def ready(self) -> bool:
        """Whether a Full phase has been taken in."""
        return self._weight > 0

    def direction(self) -> Tensor:
        """Return the mean displacement [n] of a real step, as a fresh tensor."""
        return self._momentum * (1 / self._weight if self._weight else 0.0)

    @torch.no_grad()
    def start_full(self) -> None:
        """Mark where the next Full phase starts."""
        super().start_full()
        self._begin.copy_(self.groups.vector)

    def _close(self, steps: int) -> None:
        if steps:
            self._take_in(self.groups.vector - self._begin, steps)

    def _take_in(self, displacement: Tensor, steps: int) -> None:
        keep = self.decay**steps
        self._momentum.mul_(keep).add_(displacement, alpha=(1 - keep) / steps)
        self._weight = keep * self._weight + (1 - keep)

    def state_dict(self) -> dict[str, Any]:
        """Return every buffer, copied."""
        copies = {"momentum": self._copy(self._momentum), "begin": self._copy(self._begin)}
        return {**super().state_dict(), **copies, "weight": self._weight}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state)
        self._momentum, self._begin = (self._here(state[name]).clone() for name in ("momentum", "begin"))
        self._weight = state["weight"]
