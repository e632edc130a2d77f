"""When a horizon is looked at: the correction interval, fixed or by how large prediction errors are."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any, Literal

Schedule = Literal["fixed", "adaptive"]

VARIANCE_DECAY = 0.9
MINIMUM_FACTOR, MAXIMUM_FACTOR = 0.5, 2.0


class CorrectionSchedule:
    """Sets the interval between micro-corrections, once a cycle (original, Enhancement 5).

    The adaptive interval is base · clamp(2/(1 + V/V_ref), ½, 2), with V = 0.9·V + 0.1·(mean squared residual
    of the newest jump) and V_ref that of the first jump: small errors lengthen it, large ones shorten it,
    and losses in another unit leave it alone. The original's own 1/(1 + V) never exceeds 1 and depends on the
    unit (docs/design-notes.md). The errors of Warmup are no reference: one step ahead they are so much
    smaller than a jump's that the interval would stay at its minimum.

    Args:
        base: I, logical steps; 0 keeps micro-corrections off.
        schedule: "fixed" stays at the base.
    """

    def __init__(self, base: int, schedule: Schedule = "fixed") -> None:
        self._base = base
        self._adaptive = schedule == "adaptive" and base > 0
        self._reference: float | None = None
        self._variance = 0.0

    @property
    def interval(self) -> int:
        """Logical steps between micro-corrections; 0 for none."""
        total = (self._reference or 0.0) + self._variance
        if not self._adaptive or not total:
            return self._base
        factor = 2 * (self._reference or 0.0) / total
        return max(int(self._base * min(max(factor, MINIMUM_FACTOR), MAXIMUM_FACTOR)), 1)

    def update(self, loss_residuals: Sequence[float]) -> None:
        """Take in the residuals (actual − predicted loss) of one jump; those not finite are left out."""
        squares = [residual * residual for residual in loss_residuals if isfinite(residual)]
        if not self._adaptive or not squares:
            return
        variance = sum(squares) / len(squares)
        if self._reference is None:
            self._reference = self._variance = variance
        else:
            self._variance = VARIANCE_DECAY * self._variance + (1 - VARIANCE_DECAY) * variance

    def state_dict(self) -> dict[str, Any]:
        """Return both variances."""
        return {"reference": self._reference, "variance": self._variance}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` returned."""
        self._reference, self._variance = state["reference"], state["variance"]
