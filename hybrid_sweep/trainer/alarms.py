"""Levels, actions and signals: what a monitor says of a step, and what is to be done about it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NamedTuple


class DivergenceLevel(IntEnum):
    """How bad it is (original, Divergence monitoring), by Python's names and by the original's."""

    NORMAL = Normal = 0
    CAUTION = Caution = 1
    WARNING = Warning = 2
    CRITICAL = Critical = 3


class Action(IntEnum):
    """What to do about it; where two are asked for, the greater one is done (docs/design-notes.md)."""

    CONTINUE = 0
    REDUCE_RATIO = 1
    INCREASE_FULL = 2
    FORCE_CORRECT = 3
    FORCE_FULL = 4
    ROLLBACK = 5


LEVEL_ACTION: Final = {
    DivergenceLevel.NORMAL: Action.CONTINUE,
    DivergenceLevel.CAUTION: Action.CONTINUE,
    DivergenceLevel.WARNING: Action.FORCE_FULL,
    DivergenceLevel.CRITICAL: Action.ROLLBACK,
}


@dataclass(frozen=True, slots=True)
class DivergenceSignal:
    """The monitor's word on one observed step.

    Attributes:
        level: the highest level among the signals that fired.
        name: the signal that fired at that level; `none` where all is well.
        description: one sentence with the figures; empty where all is well.
        action: the strongest recovery that was asked for.
        predicted_loss: what had been predicted for this step; None where nothing was.
        deviation_sigmas: of the loss, as `divergence_rule` defines it; NaN where it was not judged.
        confidence: of the predictor, in [0, 1]; None where none was given.
    """

    level: DivergenceLevel
    name: str
    description: str
    action: Action
    predicted_loss: float | None
    deviation_sigmas: float
    confidence: float | None

    @classmethod
    def unmeasured(cls, predicted_loss: float | None, confidence: float | None) -> DivergenceSignal:
        """Return the signal of a predicted step, of which nothing is known."""
        return cls(DivergenceLevel.NORMAL, "none", "", Action.CONTINUE, predicted_loss, math.nan, confidence)


class Alarm(NamedTuple):
    """One signal that fired; alarms compare by level, then by action."""

    level: DivergenceLevel
    action: Action
    name: str
    description: str

    @classmethod
    def from_levels(
        cls, name: str, native: DivergenceLevel, proposed: Action, level: DivergenceLevel, description: str
    ) -> Alarm:
        """Take the signal's own proposal at its own level, the level's action below, both above."""
        if level < native:
            action = LEVEL_ACTION[level]
        else:
            action = proposed if level == native else max(proposed, LEVEL_ACTION[level])
        return cls(level, action, name, description)
