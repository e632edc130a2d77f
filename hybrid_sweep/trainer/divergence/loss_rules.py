"""When is a loss out of the ordinary? Two rules that learn from the losses: the original's, and ours.

Both answer `observe(loss)` with a `LossReading`, in constant time and from plain numbers, so that a monitor
can ask on every training step.
"""

from __future__ import annotations

import cmath
import math
from collections import deque
from dataclasses import dataclass, field
from operator import mul
from statistics import median
from typing import NamedTuple

MINIMUM_LOSSES = 50  # before a loss is judged
SEED_MEMORY = 100

# The calibrated rule
INITIAL = 10  # losses whose mean is the first level
LAG = 12  # steps until a loss is learned
LEVEL_RATE = 1 / 40
NOISE_RATE = 1 / 30
LEAST_RELATIVE_NOISE = 0.002
RECENT = 8  # residuals in the smoothed loss
WINDOW = 16  # residuals in the periodogram
SUSTAINED = 0.7  # of the threshold, for what lasts: a rise, an amplitude
HITS = 5  # of the newest 8 steps
BEYOND = 100  # times anything seen: one loss is enough
FADING = 0.99  # of the largest residual, a step
SETTLING = 5  # losses after a jump that show its new level
EXTRAPOLATION = 1 + 0.5 * LAG * LEVEL_RATE / (1 - LEVEL_RATE)
SIGMA_PER_MEAN_DEVIATION = math.sqrt(math.pi / 2)
WAVES = [
    [cmath.exp(-2j * math.pi * k * i / WINDOW) for i in range(WINDOW)] for k in range(2, WINDOW // 2 + 1)
]


class LossReading(NamedTuple):
    """What a rule says of one loss.

    `deviation` is in standard deviations of the loss's noise, NaN until it can be judged. `severity` is in
    units of the threshold: 1 asks for action. `oscillating` says that the loss swings.
    """

    deviation: float
    severity: float
    oscillating: bool


UNJUDGED = LossReading(math.nan, 0.0, False)
BURST = LossReading(math.nan, 1.0, False)


@dataclass(slots=True)
class SeedLossRule:
    """The literal rules of the seed (Divergence Detection): they fire on plain noise, as stated there.

    Deviation: |z| of one loss against its moving average of decay 0.99, two-sided; iid Gaussian noise passes
    3 sigma on 0.27 % of steps. Oscillation: more than 5 sign changes of the loss's differences within 10
    losses; iid noise does so on 45 % of steps. Both averages start as plain means, so that the first loss
    leaves no trace in the variance.
    """

    threshold: float
    count: int = 0
    mean: float = 0.0
    variance: float = 0.0
    last: float = 0.0
    rising: bool = False
    turns: deque[bool] = field(default_factory=lambda: deque(maxlen=8))

    @property
    def calm(self) -> bool:
        """Whether nothing is suspected: the literal rule fires at once or not at all."""
        return True

    def expect_fall(self) -> None:
        """Ignore jumps: the literal rule does not know of them."""

    def is_absurd(self, loss: float) -> bool:
        """Return False: the literal rule has no more than its threshold."""
        return False

    def observe(self, loss: float) -> LossReading:
        """Judge a finite loss against those before it, then learn from it."""
        difference = loss - self.mean
        self.count += 1
        if self.count > 1:
            rising = loss > self.last
            if self.count > 2:
                self.turns.append(rising != self.rising)
            self.rising = rising
        self.last = loss
        z = math.nan
        if self.count > MINIMUM_LOSSES and self.variance > 0:
            z = difference / math.sqrt(self.variance)
        rate = max(1 / self.count, 1 / SEED_MEMORY)
        self.mean += rate * difference
        if self.count > 1:
            self.variance += max(1 / (self.count - 1), 1 / SEED_MEMORY) * (difference**2 - self.variance)
        severity = 0.0 if math.isnan(z) else abs(z) / self.threshold
        return LossReading(z, severity, sum(self.turns) > 5)


@dataclass(slots=True)
class CalibratedLossRule:
    """One-sided, on the smoothed loss, against its trend and its measured noise (docs/design-notes.md).

    Trend: Brown's double exponential smoothing of the losses up to `LAG` steps ago, extrapolated to now with
    half of its slope (a damped trend, Gardner and McKenzie 1985). The lag keeps a fault out of its own
    yardstick. Noise: the mean absolute residual, times sqrt(pi/2) for sigma, equally late. Neither learns
    more than 3 mean residuals from one loss above the forecast. Residuals, in sigmas, are clipped at the
    threshold, so that no single step can raise an alarm.

    Burst: one loss that is off by `BEYOND` times the forecast and the largest residual of late is a warning.
    Rise: the mean of the newest 8 residuals passes 0.7 of the threshold at 5 of 8 steps. One that doubles the
    loss has severity 2. Oscillation: the largest amplitude of a sinusoid of period 2 to 8 in the newest 16
    residuals (their periodogram, Schuster 1898) passes 0.7 of the threshold. A rise that was reported, a
    sustained fall, and the fall that a jump brings become the new level, so that one event is one alarm.
    """

    threshold: float
    count: int = 0
    level: float = 0.0
    level_smoothed: float = 0.0
    noise: float = 0.0
    losses: deque[float] = field(default_factory=deque)
    residuals: deque[float] = field(default_factory=deque)
    window: deque[float] = field(default_factory=lambda: deque([0.0] * WINDOW))
    recent_sum: float = 0.0
    energy: float = 0.0
    hits: int = 0
    settling: int = 0
    largest: float = 0.0

    @property
    def calm(self) -> bool:
        """Whether none of the newest 8 losses hints at a rise."""
        return not self.hits

    def expect_fall(self) -> None:
        """Tell that a jump may have lowered the loss: its new level is adopted after the next 5 losses."""
        self.settling = SETTLING

    def is_absurd(self, loss: float) -> bool:
        """Return whether a loss is beyond anything seen; what it then is counts as seen, by halves."""
        if self.count <= INITIAL:
            return False
        usual = max(abs(self._forecast), self.largest)
        absurd = loss - self._forecast > BEYOND * usual
        if absurd:
            self.largest = 2 * usual
        return absurd

    @property
    def _forecast(self) -> float:
        return self.level + EXTRAPOLATION * (self.level - self.level_smoothed)

    def observe(self, loss: float) -> LossReading:
        """Judge a finite loss against the trend, then learn from the one `LAG` steps back."""
        self.count = count = self.count + 1
        if count <= INITIAL:
            self.level += (loss - self.level) / count
            self.level_smoothed = self.level
            return UNJUDGED
        forecast = self._forecast
        sigma = SIGMA_PER_MEAN_DEVIATION * self.noise or 1e-12
        if sigma < (least := LEAST_RELATIVE_NOISE * abs(forecast)):
            sigma = least
        residual = loss - forecast
        absurd = residual > BEYOND * self.largest and self.is_absurd(loss)
        if not absurd:
            self.largest = max(abs(residual), FADING * self.largest)
        self.losses.append(loss)
        self.residuals.append(residual)
        if len(self.losses) > LAG:
            self._learn(self.losses.popleft(), self.residuals.popleft())
        if count <= MINIMUM_LOSSES:
            return BURST if absurd else UNJUDGED

        z = residual / sigma
        if z > self.threshold:
            z = self.threshold
        elif z < -self.threshold:
            z = -self.threshold
        window = self.window
        oldest = window.popleft()
        self.recent_sum += z - window[-RECENT]
        self.energy += z * z - oldest * oldest
        window.append(z)

        deviation = self.recent_sum / RECENT
        limit = SUSTAINED * self.threshold
        severity = deviation / limit
        self.hits = (self.hits << 1 | (severity > 1)) & 0xFF
        if severity > 1:
            severity = self._adopt_level(RECENT, forecast) if self.hits.bit_count() >= HITS else 0.99
        elif severity < -1:
            self._adopt_level(RECENT, forecast)
        elif self.settling:
            self.settling -= 1
            if not self.settling and median(list(self.residuals)[-SETTLING:]) < 0:
                self._adopt_level(SETTLING, forecast)
        # By Parseval, no amplitude can reach the limit below this energy.
        oscillating = self.energy > 0.5 * WINDOW * limit * limit and self._amplitude() > limit
        if oscillating:
            self._forget_window()
        if absurd and severity < 1:
            return BURST
        return LossReading(deviation, severity, oscillating)

    def _learn(self, loss: float, residual: float) -> None:
        size = abs(residual)
        rate = NOISE_RATE
        if self.count > MINIMUM_LOSSES:
            if size > (most := 3 * self.noise) > 0:
                if residual > 0:
                    loss -= size - most
                size = most
        else:
            rate = max(rate, 1 / (self.count - INITIAL - LAG))
        self.noise += rate * (size - self.noise)
        self.level += LEVEL_RATE * (loss - self.level)
        self.level_smoothed += LEVEL_RATE * (self.level - self.level_smoothed)

    def _adopt_level(self, newest: int, forecast: float) -> float:
        """Move the trend to the level of the newest residuals; return the severity of the move."""
        residuals = list(self.residuals)
        shift = median(residuals[-newest:])
        self.level += shift
        self.level_smoothed += shift
        losses = list(self.losses)
        self.losses = deque([loss + shift for loss in losses[:-newest]] + losses[-newest:])
        self.residuals = deque(residuals[:-newest] + [residual - shift for residual in residuals[-newest:]])
        self._forget_window()
        return 2.0 if shift > forecast > 0 else 1.0

    def _forget_window(self) -> None:
        self.window = deque([0.0] * WINDOW)
        self.recent_sum = self.energy = 0.0
        self.hits = 0

    def _amplitude(self) -> float:
        """Return the largest amplitude of the periods 8 to 2 in the window, in sigmas."""
        sizes: list[float] = [abs(sum(map(mul, self.window, wave))) / WINDOW for wave in WAVES]
        return max(2 * max(sizes[:-1]), sizes[-1])
