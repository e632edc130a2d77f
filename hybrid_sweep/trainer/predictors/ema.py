"""EmaVelocity: the exponential moving average of real updates, kept across cycles. The default."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hybrid_sweep.trainer.predictors.base import LayerGroups, Linear
from hybrid_sweep.trainer.stability import stride


class EmaVelocity(Linear):
    """v ← βv + (1−β)(θ_t − θ_{t−1}), without ever forming the difference of two steps.

    The average of the updates is the lag of the average of the weights: with e ← βe + (1−β)θ, e₀ = θ₀, the
    lag θ − e is the EMA of the updates times z, where z is the lag of a walk that moves by one a step. So
    v̂ = (θ − e) / z, bias-corrected by construction, and one in-place `lerp` is all the cost. The lerp is
    made every s-th real step with βˢ, twice a Full phase and at least every tenth step: the updates of such
    a block share their weight. A jump moves θ and e together, which keeps predicted displacements out of v̂.

    Stable on a quadratic mode for H/K up to 3.9 (β 0.97, K = 20) or 7.1 (K = 10), at the edge of stability
    too (`trainer/stability.py`). Memory: three copies of the weights (e, last direction, start of the phase).
    Cost: a pass over the weights every s-th real step, and one a jump.
    """

    def __init__(self, groups: LayerGroups, decay: float, full_steps: int) -> None:
        super().__init__(groups, decay, full_steps)
        self._stride = stride(full_steps)
        self._keep = decay**self._stride
        self._average = [p.clone() for p in groups.parameters]
        self._lag = 0.0

    def observe(self) -> None:
        """Take in the real step that just ended."""
        self.observed += 1
        self._lag += 1
        if self.observed % self._stride == 0:
            with torch.no_grad():
                torch._foreach_lerp_(self._average, self.groups.parameters, 1 - self._keep)
            self._lag *= self._keep

    def direction(self) -> list[Tensor]:
        """Return v̂ as fresh tensors."""
        velocity = torch._foreach_sub(self.groups.parameters, self._average)
        torch._foreach_mul_(velocity, 1 / self._lag if self._lag else 0.0)
        return list(velocity)

    def _moved(self, delta: list[Tensor], steps: Sequence[float]) -> None:
        torch._foreach_add_(self._average, delta)

    def state_dict(self) -> dict[str, Any]:
        """Return every buffer, copied."""
        return {**super().state_dict(), "average": [t.clone() for t in self._average], "lag": self._lag}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state)
        self._average = [t.clone() for t in self._here(state["average"])]
        self._lag = state["lag"]
