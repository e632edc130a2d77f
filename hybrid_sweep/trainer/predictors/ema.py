"""EmaVelocity: the exponential moving average of real updates, kept across cycles. The default."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hybrid_sweep.trainer.layer_groups import LayerGroups
from hybrid_sweep.trainer.predictors.base import Linear
from hybrid_sweep.trainer.stability import stride


class EmaVelocity(Linear):
    """v ← βv + (1−β)(θ_t − θ_{t−1}), without ever forming the difference of two steps.

    The average of the updates is the lag of the average of the weights: with e ← βe + (1−β)θ, e₀ = θ₀, the
    lag θ − e is the EMA of the updates times z, where z is the lag of a walk that moves by one a step. So
    v̂ = (θ − e) / z, bias-corrected by construction, and one in-place `lerp` is all the cost. The lerp is
    made every s-th real step with βˢ, twice a Full phase and at least every tenth step: the updates of such
    a block share their weight. A jump moves θ and e together, which keeps predicted displacements out of v̂.

    Stable on a quadratic mode for H/K up to 3.9 (β 0.97, K = 20) or 7.1 (K = 10), at the edge of stability
    too (`trainer/stability.py`). Memory: one copy of the weights.
    Cost: a pass over the weights every s-th real step, and one a jump.
    """

    copied = ("average",)

    def __init__(self, groups: LayerGroups, decay: float, full_steps: int) -> None:
        super().__init__(groups, decay, full_steps)
        self._stride = stride(full_steps)
        self._keep = decay**self._stride
        self._average = groups.vector.clone()
        self._lends = False  # whether the next state may hold the average itself
        self._lent = False  # whether a state does: the next change of the average makes another vector
        self._lag = 0.0

    def observe(self) -> None:
        """Take in the real step that just ended."""
        self.observed += 1
        self._lag += 1
        if self.observed % self._stride == 0:
            with torch.no_grad():
                old = self._average
                self._average = torch.lerp(old, self.groups.vector, 1 - self._keep, out=self._own())
            self._lag *= self._keep

    def direction(self) -> Tensor:
        """Return v̂ [n], as a fresh tensor."""
        return torch.sub(self.groups.vector, self._average, out=self._blank()).mul_(self._per_lag)

    @property
    def _per_lag(self) -> float:
        return 1 / self._lag if self._lag else 0.0

    def _sampled_direction(self, weights: Tensor) -> Tensor:
        return (weights - self._sample(self._average)).mul_(self._per_lag)

    def _moved(self, delta: Tensor, steps: Sequence[float]) -> None:
        self._average = torch.add(self._average, delta, out=self._own())

    def _own(self) -> Tensor:
        """Return the vector [n] that the next average is to lie in."""
        lent, self._lent = self._lent, False
        return self._blank() if lent else self._average

    def recycle(self, state: dict[str, Any]) -> None:
        """As any predictor; the next state, which is to come back so too, may hold the average itself."""
        self._lends = True
        if state["average"] is not self._average:
            super().recycle(state)

    def state_dict(self) -> dict[str, Any]:
        """Return every buffer, copied or, to an owner who gives it back, lent until it changes."""
        lends, self._lends = self._lends and not self._lent, False
        average = self._average if lends else self._copy(self._average)
        self._lent |= lends
        return {**super().state_dict(), "average": average, "lag": self._lag}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state)
        self._average, self._lent = self._here(state["average"]).clone(), False
        self._lag = state["lag"]
