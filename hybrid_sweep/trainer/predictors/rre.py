"""ReducedRank: the fixed point that the last averages of the weights seem to run towards, capped."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from hybrid_sweep.trainer.layer_groups import LayerGroups
from hybrid_sweep.trainer.predictors.windowed import Windowed

RIDGE = 1e-3
"""Of the Gram matrix's mean diagonal, added to it."""
DAMPING = 0.9
"""Share of the way that is gone."""
CAP = 1e-3
"""Longest displacement of a layer group, as a share of its weights' norm."""


class ReducedRank(Windowed):
    """θ* = Σ cᵢ θᵢ over the window means of the last Full phase, Σc = 1, ‖Σ cᵢ uᵢ‖ least; capped.

    Reduced-rank extrapolation (Anderson's type 2) on up to four increments u, as in docs/design-notes.md:
    it goes 0.9 of the way from the weights to θ*, at most 0.1 % of each layer group's norm, and all of it in
    the first sub-jump, whatever the horizon: a fixed point has no speed. With noisy gradients every c is
    positive and θ* an average, so expect a calmer tail and not an acceleration.

    Stable for any H, since the displacement is bounded. Needs K ≥ 3. Memory: 6 copies of the weights (four
    increments, mean, sum). Cost: one pass over the weights a real step,
    four inner products a window, six passes a jump.
    """

    kept = 4

    def __init__(self, groups: LayerGroups, decay: float, full_steps: int) -> None:
        super().__init__(groups, decay, full_steps)
        self._limits = groups.squares(groups.vector)  # at the start of the Full phase

    @torch.no_grad()
    def start_full(self) -> None:
        """Mark where the next Full phase starts."""
        super().start_full()
        self._limits = self.groups.squares(self.groups.vector)

    @property
    def ready(self) -> bool:
        """Whether two increments follow each other."""
        return bool(self.follows) and self.follows[-1]

    def displacement(self, begin: float, end: float) -> Tensor:
        """Return the whole way to the extrapolated weights where `begin` is 0, and nothing later."""
        if begin > 0 or not self.ready:
            return torch.zeros_like(self.groups.vector)
        way = self.combined(self._coefficients()).add_(self.mean).sub_(self.groups.vector)
        squares = zip(self._limits, self.groups.squares(way), strict=True)
        shares = [min(DAMPING, CAP * (limit / length) ** 0.5) if length else 0.0 for limit, length in squares]
        self.groups.scale_(way, shares)
        return way

    def _coefficients(self) -> list[float]:
        """Return what of each increment lies between θ* and the newest window mean."""
        chain = len(self.follows) - 1
        while chain > 0 and self.follows[chain]:
            chain -= 1
        gram = np.array(self.gram)[chain:, chain:]
        count = len(gram)
        ridge = RIDGE * np.trace(gram) / count + np.finfo(float).tiny
        weights = np.linalg.solve(gram + ridge * np.eye(count), np.ones(count))
        weights /= weights.sum()
        return [0.0] * chain + [float(c) for c in weights - np.cumsum(weights)]

    def state_dict(self) -> dict[str, Any]:
        """Return every buffer, copied where it is written into."""
        return {**super().state_dict(), "limits": self._limits}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state)
        self._limits = state["limits"]
