"""Confidence: how far the predictor is to be trusted, and whether it deserved that."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from math import isfinite, sqrt
from typing import Any, Literal

from hybrid_sweep.trainer.forecast.calibration import (
    BINS,
    Calibration,
    Calibrator,
    ReliabilityBin,
    reliability,
)
from hybrid_sweep.trainer.forecast.features import RealStep
from hybrid_sweep.trainer.skill import Skill

ConfidenceRule = Literal["three_term", "original"]

CEILING = 0.99
"""No confidence is higher."""
SHUT = 0.999
"""A threshold that is therefore a gate that is always shut."""

ERRORS_KEPT = 50
ERRORS_NEEDED = 10
UNPROVEN_HISTORY = 0.7
ACCURATE_WITHIN = 0.1
NOISE_DEVIATIONS = 2.0
"""Deviations of one batch's loss that no prediction can be blamed for (two: one measurement in twenty)."""
OUTCOME_WEIGHT = 0.3
"""Share of the way that one outcome moves the confidence in the next prediction of the same jump."""
STABILITY_WINDOW = 20
SCORES_KEPT = 10_000


class Confidence:
    """One number in [0, 0.99] after each Full phase, and a record of how often it was right.

    It is meant as the probability that a measured loss confirms the prediction: that it lies within 10 % of
    it, but for the noise of the one batch that it was measured on. (A batch's loss may well scatter by 30 %;
    then no prediction, however good, lies within 10 % of most of them.) Within a jump each outcome moves the
    confidence in the next prediction.

    Args:
        rule: "three_term" (later upstream, normalised by the scale of the loss) or "original" (0.7 loss
            stability + 0.3 gradient stability).
        calibration: how outcomes so far correct what the rule says.
    """

    def __init__(self, rule: ConfidenceRule = "three_term", calibration: Calibration = "none") -> None:
        self._rule = rule
        self._calibrator = Calibrator(calibration)
        self._raw = 0.0  # of the next prediction
        self._errors: deque[float] = deque(maxlen=ERRORS_KEPT)
        self._scores: deque[tuple[float, bool]] = deque(maxlen=SCORES_KEPT)
        self._scored = 0
        self._accurate = 0
        self._confirmed = 0
        self._shown: list[bool] = []  # outcomes since the newest real step
        self.value = 0.0
        """Confidence after the last update; 0 before the first."""
        self.skill = Skill()
        """By Brier score, against always forecasting the share confirmed so far, (k + 1)/(n + 2)."""

    def update(self, errors: Sequence[float], spread: float, steps: Sequence[RealStep]) -> float:
        """Take in what the last training pass showed and return the new confidence.

        Args:
            errors: one-step-ahead errors, relative to the loss.
            spread: disagreement of the predictions, relative to the loss.
            steps: the newest real steps, oldest first; the original's rule looks at 20 of them.
        """
        self._errors.extend(errors)
        if not steps:
            value = 0.0
        elif self._rule == "original":
            newest = steps[-STABILITY_WINDOW:]
            value = 0.7 * stability([step.loss for step in newest])
            value += 0.3 * stability([step.gradient_norm for step in newest])
        else:
            value = three_term(spread, self._errors, steps[-1].fast, steps[-1].slow)
        self._raw = min(max(value, 0.0), CEILING) if isfinite(value) else 0.0
        self._calibrator.fade(idle=not self._shown)
        self._shown = []
        self.skill.end_jump()
        self.value = self._calibrated()
        return self.value

    def score(self, predicted: float, actual: float, noise: float = 0.0) -> bool:
        """Record one prediction whose loss has been measured; return whether it was accurate.

        Accurate is |L̂ − L| ≤ 0.1·|L|; confirmed, which confidence is about, is that with two deviations of
        noise on the right. (Upstream puts 0.1 in the place of a |L| below it: of small losses, then, any
        forecast is accurate.)

        Args:
            predicted: L̂.
            actual: L.
            noise: standard deviation of one batch's loss.
        """
        error, allowed = abs(predicted - actual), ACCURATE_WITHIN * abs(actual)
        accurate, confirmed = error <= allowed, error <= allowed + NOISE_DEVIATIONS * noise
        confidence, share = self._calibrated(), (self._confirmed + 1) / (self._scored + 2)
        self._scores.append((confidence, confirmed))
        self.skill.add(confidence - confirmed, share - confirmed)
        self._calibrator.learn(self._raw, confirmed, self._share_shown)
        self._raw += OUTCOME_WEIGHT * (confirmed - self._raw)
        self._shown = [*self._shown, confirmed]
        self._scored += 1
        self._confirmed += confirmed
        self._accurate += accurate
        return accurate

    @property
    def prediction_accuracy(self) -> float | None:
        """Share of the scored predictions that were accurate; None before the first."""
        return self._accurate / self._scored if self._scored else None

    @property
    def scores(self) -> list[tuple[float, bool]]:
        """The newest scored predictions: confidence at the prediction, and whether it was confirmed."""
        return list(self._scores)

    @property
    def brier(self) -> float | None:
        """Mean (confidence − outcome)² of the scored predictions (Brier 1950); None before the first."""
        squares = [(confidence - confirmed) ** 2 for confidence, confirmed in self._scores]
        return sum(squares) / len(squares) if squares else None

    @property
    def reliability(self) -> list[ReliabilityBin]:
        """The scored predictions by tenths of confidence."""
        return reliability(self._scores)

    def calibration_error(self, *, bins: int = BINS, minimum: int = 30) -> float | None:
        """Return the largest |mean confidence − share confirmed| over equal bins; None if all are thin.

        Args:
            bins: bins of [0, 1].
            minimum: predictions that a bin needs in order to count.
        """
        table = reliability(self._scores, bins)
        gaps = [abs(each.confidence - each.accuracy) for each in table if each.predictions >= minimum]
        return max(gaps, default=None)

    def _calibrated(self) -> float:
        return min(self._calibrator(self._raw, self._share_shown), CEILING)

    @property
    def _share_shown(self) -> float | None:
        return sum(self._shown) / len(self._shown) if self._shown else None

    def state_dict(self) -> dict[str, Any]:
        """Return everything as plain data that later updates do not change."""
        return {
            "errors": list(self._errors),
            "scores": list(self._scores),
            "scored": self._scored,
            "accurate": self._accurate,
            "confirmed": self._confirmed,
            "shown": self._shown,
            "skill": self.skill.state_dict(),
            "calibrator": self._calibrator.state_dict(),
            "raw": self._raw,
            "value": self.value,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` returned."""
        self._errors = deque(state["errors"], ERRORS_KEPT)
        self._scores = deque(map(tuple, state["scores"]), SCORES_KEPT)
        self._scored, self._accurate = state["scored"], state["accurate"]
        self._confirmed, self._shown = state["confirmed"], list(state["shown"])
        self.skill.load_state_dict(state["skill"])
        self._calibrator.load_state_dict(state["calibrator"])
        self._raw, self.value = state["raw"], state["value"]


def three_term(spread: float, errors: Sequence[float], fast: float, slow: float) -> float:
    """Return 0.4·agreement + 0.4·history + 0.2·calm, each in [0, 1].

    Agreement is 1/(1 + spread). History is 1/(1 + mean error) once there are ten errors, 0.7 until then. Calm
    is max(½, 1/(1 + 2·|fast − slow|/slow)).

    Args:
        spread: disagreement of the predictions, relative to the loss.
        errors: the newest one-step errors, relative to the loss.
        fast: fast average of the loss.
        slow: slow average of the loss.
    """
    history = 1 / (1 + sum(errors) / len(errors)) if len(errors) >= ERRORS_NEEDED else UNPROVEN_HISTORY
    drift = abs(fast - slow) / abs(slow) if slow else 0.0
    return 0.4 / (1 + spread) + 0.4 * history + 0.2 * max(0.5, 1 / (1 + 2 * drift))


def stability(values: Sequence[float]) -> float:
    """Return 1/(1 + deviation/|mean|): 1 for a constant, towards 0 the more the values scatter."""
    mean = sum(values) / len(values)
    deviation = sqrt(sum((value - mean) ** 2 for value in values) / len(values))
    if not deviation:
        return 1.0
    return 1 / (1 + deviation / abs(mean)) if mean else 0.0
