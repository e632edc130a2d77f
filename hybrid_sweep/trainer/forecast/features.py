"""What the predictor sees of training: scale-free features of the real steps."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from itertools import islice, starmap
from math import exp, isfinite, log, log1p, sqrt
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

FEATURE_NAMES = (
    "level",  # log of the loss relative to the smoothed loss before it
    "trend",  # log of the fast average of the loss relative to the slow one
    "change",  # log of the loss relative to the loss before it
    "noise",  # deviation of the loss from its fast average, relative to that average
    "gradient_level",
    "gradient_trend",
    "gradient_noise",
    "log_step",
    "learning_rate",  # relative to the highest one seen
    "log_steps_since_gap",  # a gap is a run of predicted steps between two real ones
    "log_gap",
)
FEATURES = len(FEATURE_NAMES)
Array = npt.NDArray[np.float32]
LOG_LIMIT = 10.0
"""Bound of every logarithm, also of the loss head's (later upstream, exp(clamp(w·s, ±10)))."""

FAST_DECAY = 0.9
SLOW_DECAY = 0.99
MINIMUM_VARIANCE = 1e-6
"""A feature that varies less is taken for a constant."""
_RATIO_FLOOR = exp(-LOG_LIMIT)


class RealStep(NamedTuple):
    """One recorded real step and the averages right after it."""

    step: int
    loss: float
    gradient_norm: float
    fast: float
    slow: float


@dataclass(slots=True)
class LossTracker:
    """Running averages of loss and gradient norm; turns one step into its features.

    The averages start as plain means (weight 1/n until that falls below 1 − decay), so the first value is
    not remembered for longer than any other. After a gap the fast ones start again so, with what they were
    before it as one value: a jump changes the level of the loss at once.
    """

    count: int = 0
    step: int = 0
    loss: float = 0.0
    last: float = 0.0
    fast: float = 0.0
    fast_before: float = 0.0
    slow: float = 0.0
    variance: float = 0.0
    gradient_norm: float = 0.0
    gradient_fast: float = 0.0
    gradient_before: float = 0.0
    gradient_slow: float = 0.0
    gradient_variance: float = 0.0
    learning_rate: float = 0.0
    peak_learning_rate: float = 0.0
    since_gap: int = 0
    gap: int = 0

    def push(self, step: int, loss: float, gradient_norm: float, learning_rate: float) -> None:
        """Take one step in.

        Args:
            step: logical step, 1…N; more than one further than the last is a gap.
            loss: training loss of the step, finite; positive for the features to be informative.
            gradient_norm: norm of the gradient of the step, finite.
            learning_rate: learning rate of the step.
        """
        if self.count == 0:
            self.loss = self.fast = loss
            self.gradient_fast = gradient_norm
        elif step != self.step + 1:
            self.gap, self.since_gap = max(step - self.step - 1, 0), 0
        self.count += 1
        self.since_gap += 1
        slow_weight = max(1 - SLOW_DECAY, 1 / self.count)
        fast_weight = max(1 - FAST_DECAY, 1 / (self.since_gap + (self.gap > 0)))
        self.last, self.fast_before, self.gradient_before = self.loss, self.fast, self.gradient_fast
        self.step, self.loss = step, loss
        self.gradient_norm, self.learning_rate = gradient_norm, learning_rate
        surprise = loss - self.fast
        self.fast += fast_weight * surprise
        self.variance += fast_weight * (surprise * surprise - self.variance)
        self.slow += slow_weight * (loss - self.slow)
        surprise = gradient_norm - self.gradient_fast
        self.gradient_fast += fast_weight * surprise
        self.gradient_variance += fast_weight * (surprise * surprise - self.gradient_variance)
        self.gradient_slow += slow_weight * (gradient_norm - self.gradient_slow)
        self.peak_learning_rate = max(self.peak_learning_rate, learning_rate)

    def features(self) -> tuple[float, ...]:
        """Return the features of the newest step, in the order of `FEATURE_NAMES`."""
        return (
            log_ratio(self.loss, self.fast_before),
            log_ratio(self.fast, self.slow),
            log_ratio(self.loss, self.last),
            _relative(sqrt(self.variance), self.fast),
            log_ratio(self.gradient_norm, self.gradient_before),
            log_ratio(self.gradient_fast, self.gradient_slow),
            _relative(sqrt(self.gradient_variance), self.gradient_fast),
            log1p(self.step),
            _relative(self.learning_rate, self.peak_learning_rate),
            log1p(self.since_gap),
            log1p(self.gap),
        )

    def as_tuple(self) -> tuple[float, ...]:
        """Return the fields in their order, for `LossTracker(*fields)`."""
        return tuple(getattr(self, name) for name in self.__slots__)


class StepHistory:
    """The newest real steps, appended in O(1) and turned into features when asked.

    Steps whose loss or gradient norm is not finite are left out: they carry no trend.

    Args:
        capacity: real steps kept; older ones live on in the running averages only.
    """

    def __init__(self, capacity: int = 512) -> None:
        self._pending: list[tuple[int, float, float, float]] = []
        self._capacity = capacity
        self._steps: deque[RealStep] = deque(maxlen=capacity)
        self._features: deque[tuple[float, ...]] = deque(maxlen=capacity)
        self._tracker = LossTracker()

    def append(self, step: int, loss: float, gradient_norm: float, learning_rate: float) -> None:
        """Record one real step (a list append, about 0.1 µs)."""
        self._pending.append((step, loss, gradient_norm, learning_rate))
        if len(self._pending) == self._capacity:
            self._digest()

    def __len__(self) -> int:
        self._digest()
        return len(self._steps)

    @property
    def tracker(self) -> LossTracker:
        """A copy of the running averages after the newest real step."""
        self._digest()
        return copy(self._tracker)

    def newest(self, last: int) -> list[RealStep]:
        """Return the newest `last` real steps, oldest first (fewer where there are fewer)."""
        self._digest()
        return _tail(self._steps, last)

    def rows(self, last: int) -> list[tuple[float, ...]]:
        """Return the features of the newest `last` real steps, oldest first, as plain numbers.

        They are scale-free: multiplying every loss by a constant leaves them as they are.
        """
        self._digest()
        return _tail(self._features, last)

    def state_dict(self) -> dict[str, Any]:
        """Return everything as plain data that later appends do not change."""
        self._digest()
        return {
            "steps": list(self._steps),
            "features": list(self._features),
            "tracker": self._tracker.as_tuple(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` returned."""
        self._pending.clear()
        self._steps = deque(starmap(RealStep, state["steps"]), self._steps.maxlen)
        self._features = deque(map(tuple, state["features"]), self._features.maxlen)
        self._tracker = LossTracker(*state["tracker"])

    def _digest(self) -> None:
        tracker = self._tracker
        for step, loss, gradient_norm, learning_rate in self._pending:
            if isfinite(loss) and isfinite(gradient_norm):
                tracker.push(step, loss, gradient_norm, learning_rate)
                self._features.append(tracker.features())
                self._steps.append(RealStep(step, loss, gradient_norm, tracker.fast, tracker.slow))
        self._pending.clear()


class Standardizer:
    """Running mean and deviation of feature rows, so that none outweighs the others.

    Args:
        size: features a row.
        limit: standardised values are clamped to ±limit.
    """

    def __init__(self, size: int = FEATURES, limit: float = 5.0) -> None:
        self._limit = limit
        self._count = 0
        self._sums = np.zeros(size)
        self._squares = np.zeros(size)
        self._scale: tuple[Array, Array] | None = None

    def update(self, rows: Array) -> None:
        """Take in rows of features [n, size]."""
        exact = rows.astype(np.float64)
        self._count += len(rows)
        self._sums = self._sums + np.add.reduce(exact)
        self._squares = self._squares + np.add.reduce(exact * exact)
        self._scale = None

    def __call__(self, rows: Array) -> Array:
        """Return rows [..., size] with mean 0 and deviation 1; a constant feature becomes 0."""
        if self._scale is None:
            self._scale = self._derive()
        mean, deviation = self._scale
        result: Array = np.clip((rows - mean) / deviation, -self._limit, self._limit)
        return result

    def _derive(self) -> tuple[Array, Array]:
        """Return mean and deviation of everything that was taken in."""
        count = max(self._count, 1)
        means = self._sums / count
        variances = np.maximum(self._squares / count - means * means, MINIMUM_VARIANCE)
        deviations = np.sqrt(variances) if self._count else np.ones_like(means)
        return means.astype(np.float32), deviations.astype(np.float32)

    def state_dict(self) -> dict[str, Any]:
        """Return the statistics, which later updates replace and never write into."""
        return {"count": self._count, "sums": self._sums, "squares": self._squares}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` returned."""
        self._count = state["count"]
        self._sums, self._squares = np.asarray(state["sums"]), np.asarray(state["squares"])
        self._scale = None


def as_array(values: Sequence[Any]) -> Array:
    """Return (rows of) numbers as float32."""
    return np.array(values, dtype=np.float32)


def log_ratio(value: float, reference: float) -> float:
    """Return log(value / reference) within ±LOG_LIMIT; −LOG_LIMIT where the two differ in sign."""
    ratio = value / reference if reference else 1.0
    return min(log(ratio), LOG_LIMIT) if ratio > _RATIO_FLOOR else -LOG_LIMIT


def _relative(value: float, reference: float) -> float:
    return min(value / abs(reference), LOG_LIMIT) if reference else 0.0


def _tail(items: deque[Any], last: int) -> list[Any]:
    """Return the newest `last` items, oldest first."""
    return list(islice(items, max(len(items) - last, 0), None))
