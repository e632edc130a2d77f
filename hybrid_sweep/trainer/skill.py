"""Skill: how much better forecasts are than a simple one, with an interval that counts jumps."""

from __future__ import annotations

from math import nan, sqrt
from statistics import NormalDist
from typing import Any, NamedTuple

MINIMUM_BLOCKS = 5
"""Jumps below which no interval is told."""
BLOCKS = 512
"""Jumps kept one by one; when there are as many, neighbours become one."""


class Interval(NamedTuple):
    """A skill and the 95 % interval of it; each NaN where there is not enough to tell it."""

    value: float = nan
    low: float = nan
    high: float = nan


class Skill:
    """1 − Σ(error of the forecast)² / Σ(error of the simple one)²: 1 is perfect, 0 no better than the other.

    Predictions of one jump stand or fall together, so the interval counts jumps, not predictions: with eᵢ =
    aᵢ − r·bᵢ, the sums of jump i and r their ratio, the standard error of r is √(n/(n − 1)·Σeᵢ²) / Σbᵢ (the
    ratio estimator, Cochran 1977, 6.4), and the interval ± Student's t of it.
    """

    def __init__(self) -> None:
        self._blocks: list[tuple[float, float]] = []
        self._open = (0.0, 0.0)  # of the jump that is being scored

    def add(self, error: float, simple_error: float) -> None:
        """Take in one prediction: the errors of both forecasts."""
        own, simple = self._open
        self._open = own + error * error, simple + simple_error * simple_error

    def end_jump(self) -> None:
        """Close the books of a jump; one without a prediction leaves nothing."""
        if self._open == (0.0, 0.0):
            return
        self._blocks, self._open = [*self._blocks, self._open], (0.0, 0.0)
        if len(self._blocks) == BLOCKS:
            pairs = zip(self._blocks[::2], self._blocks[1::2], strict=True)
            self._blocks = [(a + c, b + d) for (a, b), (c, d) in pairs]

    def interval(self) -> Interval:
        """Return the skill so far."""
        blocks = [block for block in [*self._blocks, self._open] if block != (0.0, 0.0)]
        own, simple = (sum(column) for column in zip(*blocks, strict=True)) if blocks else (0.0, 0.0)
        if not simple:
            return Interval()
        ratio, count = own / simple, len(blocks)
        if count < MINIMUM_BLOCKS:
            return Interval(1 - ratio)
        squares = sum((a - ratio * b) ** 2 for a, b in blocks)
        half = _student_t(count - 1) * sqrt(squares * count / (count - 1)) / simple
        return Interval(1 - ratio, 1 - ratio - half, 1 - ratio + half)

    def state_dict(self) -> dict[str, Any]:
        """Return the sums, which later predictions replace and never write into."""
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` returned."""
        vars(self).update(state)
        self._blocks = [(own, simple) for own, simple in self._blocks]
        self._open = self._open[0], self._open[1]


def relative_error(predicted: float, actual: float) -> float:
    """Return (L̂ − L) over the mean of |L̂| and |L|, in [−2, 2]: small losses count as much as large ones."""
    scale = (abs(predicted) + abs(actual)) / 2
    return (predicted - actual) / scale if scale else 0.0


def _student_t(freedom: int) -> float:
    """Return the 97.5 % quantile of Student's t, by Fisher's expansion: within 2 % from 4 degrees on."""
    z = NormalDist().inv_cdf(0.975)
    first = (z**3 + z) / (4 * freedom)
    return z + first + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
