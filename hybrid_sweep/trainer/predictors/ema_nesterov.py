"""EmaNesterov: the average displacement of whole cycles, the jumps themselves included."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hybrid_sweep.trainer.layer_groups import LayerGroups
from hybrid_sweep.trainer.predictors.base import Linear


class EmaNesterov(Linear):
    """m ← μm + (1−μ) (x − x') / (K + H'), μ = β^K: x and x' end this Full phase and the one before.

    The cycle's form of EMA-Nesterov (2605.25395): as in Nesterov's method, and unlike in the other
    predictors, the velocity takes in the jump between x' and x (H' steps of the group, gates and all). What
    the real steps take back of a jump is thus no velocity, so no H/K is unstable for β ≥ 0.97 at K = 10
    or 20; a jump that was too far is only damped, not learned from.

    SamplerStudy: two copies of the weights (m and x'). Cost: three passes over
    the weights a cycle, none in a real step.
    """

    copied = ("momentum", "last")

    def __init__(self, groups: LayerGroups, decay: float, full_steps: int) -> None:
        super().__init__(groups, decay, full_steps)
        self._momentum = torch.zeros_like(groups.vector)
        self._weight = 0.0
        self._last = groups.vector.clone()
        self._jumped = [0.0] * len(groups.names)  # steps since `_last`, by group

    @property
    def ready(self) -> bool:
        """Whether a Full phase has been taken in."""
        return self._weight > 0

    def direction(self) -> Tensor:
        """Return the mean displacement [n] of a logical step, as a fresh tensor."""
        return self._momentum * (1 / self._weight if self._weight else 0.0)

    def _moved(self, delta: Tensor, steps: Sequence[float]) -> None:
        self._jumped = [done + more for done, more in zip(self._jumped, steps, strict=True)]

    def _close(self, steps: int) -> None:
        if steps == 0:
            return
        keep = self.decay**steps
        moved = self.groups.vector - self._last
        self.groups.scale_(moved, [(1 - keep) / (steps + max(jumped, 0.0)) for jumped in self._jumped])
        self._momentum.mul_(keep).add_(moved)
        self._weight = keep * self._weight + (1 - keep)
        self._last.copy_(self.groups.vector)
        self._jumped = [0.0] * len(self._jumped)

    def state_dict(self) -> dict[str, Any]:
        """Return every buffer, copied where it is written into."""
        copies = {"momentum": self._copy(self._momentum), "last": self._copy(self._last)}
        return {**super().state_dict(), **copies, "weight": self._weight, "jumped": list(self._jumped)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state)
        self._momentum, self._last = (self._here(state[name]).clone() for name in ("momentum", "last"))
        self._weight, self._jumped = state["weight"], list(state["jumped"])
