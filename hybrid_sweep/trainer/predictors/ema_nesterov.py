"""EmaNesterov: the average displacement of whole cycles, the jumps themselves included."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hybrid_sweep.trainer.predictors.base import LayerGroups, Linear


class EmaNesterov(Linear):
    """m ← μm + (1−μ) (x − x') / (K + H'), μ = β^K: x and x' end this Full phase and the one before.

    The cycle's form of EMA-Nesterov (2605.25395): as in Nesterov's method, and unlike in the other
    predictors, the velocity takes in the jump between x' and x (H' steps of the group, gates and all). What
    the real steps take back of a jump is thus no velocity, so no H/K is unstable for β ≥ 0.97 at K = 10
    or 20; a jump that was too far is only damped, not learned from.

    Memory: four copies of the weights (m, x', last direction, start of the phase). Cost: three passes over
    the weights a cycle, none in a real step.
    """

    def __init__(self, groups: LayerGroups, decay: float, full_steps: int) -> None:
        super().__init__(groups, decay, full_steps)
        self._momentum = [torch.zeros_like(p) for p in groups.parameters]
        self._weight = 0.0
        self._last = [p.clone() for p in groups.parameters]
        self._jumped = [0.0] * len(groups.names)  # steps since `_last`, by group

    @property
    def ready(self) -> bool:
        """Whether a Full phase has been taken in."""
        return self._weight > 0

    def direction(self) -> list[Tensor]:
        """Return the mean displacement of a logical step, as fresh tensors."""
        return list(torch._foreach_mul(self._momentum, 1 / self._weight if self._weight else 0.0))

    def _moved(self, delta: list[Tensor], steps: Sequence[float]) -> None:
        self._jumped = [done + more for done, more in zip(self._jumped, steps, strict=True)]

    def _close(self, displacement: list[Tensor], steps: int) -> None:
        if steps == 0:
            return
        keep = self.decay**steps
        moved = list(torch._foreach_sub(self.groups.parameters, self._last))
        shares = [(1 - keep) / (steps + max(self._jumped[g], 0.0)) for g in self.groups.of_parameter]
        torch._foreach_mul_(moved, shares)
        torch._foreach_mul_(self._momentum, keep)
        torch._foreach_add_(self._momentum, moved)
        self._weight = keep * self._weight + (1 - keep)
        torch._foreach_copy_(self._last, self.groups.parameters)
        self._jumped = [0.0] * len(self._jumped)

    def state_dict(self) -> dict[str, Any]:
        """Return every buffer, copied where it is written into."""
        copies = {"momentum": [t.clone() for t in self._momentum], "last": [t.clone() for t in self._last]}
        return {**super().state_dict(), **copies, "weight": self._weight, "jumped": list(self._jumped)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state)
        self._momentum = [t.clone() for t in self._here(state["momentum"])]
        self._last = [t.clone() for t in self._here(state["last"])]
        self._weight, self._jumped = state["weight"], list(state["jumped"])
