"""Plan: what one Predict phase goes by, and how far it has gone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Assessment(NamedTuple):
    """What a finished Full phase says about predicting now.

    Attributes:
        confidence: in [0, 0.99].
        trusted: False while there is no direction, or successive directions disagree.
        paid: whether the last jump had paid off by the end of this phase; None where there was none.
        finite: whether the weights still are.
        learned: whether the phase was learned from.
    """

    confidence: float
    trusted: bool
    paid: bool | None
    finite: bool
    learned: bool = True


@dataclass(slots=True)
class Plan:
    """One Predict phase as it goes; every list has a number a layer group.

    Attributes:
        gates: size × group gate of its jumps.
        corrections: relative corrections of the sub-jumps to come.
        applied: steps of the direction applied so far.
        level_before: smoothed loss before it.
        last_move: factors of the newest sub-jump, and the steps from and to which it went.
        steps: logical steps predicted so far.
        horizon: the same at the learning rate of the averaged updates.
    """

    gates: list[float]
    corrections: list[float]
    applied: list[float]
    level_before: float
    last_move: tuple[list[float], int, int] = ([], 0, 0)
    steps: int = 0
    horizon: float = 0.0

    @property
    def used(self) -> list[float]:
        """The gates that the displacement really had, corrections and all."""
        return [a / self.horizon for a in self.applied] if self.horizon else self.gates

    def share(self, *shares: float) -> list[float]:
        """Return factors of the whole displacement so far that are these shares of what was applied."""
        return [s * a / max(self.steps, 1) for s, a in zip(shares, self.applied, strict=True)]
