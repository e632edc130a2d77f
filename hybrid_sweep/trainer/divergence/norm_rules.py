"""When is the norm of a gradient out of the ordinary? Two rules that learn from the norms they see.

Both answer `observe(norm)` with the factor by which the norm is off, or None, in constant time and from
plain numbers, as the rules of the loss do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

SIGMA_PER_MEAN_DEVIATION = math.sqrt(math.pi / 2)
DEVIATIONS = 5
"""Standard deviations of the norm's logarithm that also have to be passed: tails of norms are long."""

MARGIN, LASTING = 3, 8
"""Times a limit, and norms in a row, where one norm at the limit does not say enough."""


@dataclass(slots=True)
class SeedNormRule:
    """The original's limits on the mean of the first norms, which is the baseline for good (Rust: of 50).

    Args:
        explosion: a norm above this multiple of the baseline is out of the ordinary.
        vanishing: so is one below this multiple.
        memory: norms that make the baseline.
        minimum: norms before one is judged.
    """

    explosion: float
    vanishing: float
    memory: int = 50
    minimum: int = 10
    count: int = 0
    mean: float = 0.0

    def observe(
        self, norm: float, *, settled: bool = True, young: bool = False, heard: bool = True
    ) -> float | None:
        """Judge a finite norm, then learn from it; return its multiple of the baseline where that is off.

        Args:
            norm: of a gradient, ≥ 0.
            settled: nothing to this rule, which does not know of jumps.
            young: nothing to this rule.
            heard: nothing to this rule.
        """
        ratio = norm / self.mean if self.count >= self.minimum and self.mean > 0 else 1.0
        off = not self.vanishing <= ratio <= self.explosion
        if self.count < self.memory and not off:
            self.count += 1
            self.mean += (norm - self.mean) / self.count
        return ratio if off else None


@dataclass(slots=True)
class CalibratedNormRule:
    """The same limits on a baseline that moves along, and never within the norm's own scatter.

    Baseline and scatter are exponential averages of the logarithm of the norms and of its absolute
    deviations, plain means at first: the norms of small batches spread over orders of magnitude, and a loss
    that falls exponentially takes them along at a steady distance. A norm has to pass the limit and five
    standard deviations. Norms are high right after a jump: there they have to pass three times the upper
    limit, or the limit eight times in a row; and eight in a row below three times the lower one will do.
    One norm is learned as three times the baseline at most, and none that is off until that has lasted; then
    it is the new baseline.

    Args:
        explosion: multiple of the baseline, > 1.
        vanishing: multiple of the baseline, in (0, 1).
        memory: norms that the averages go back.
        minimum: norms before one is judged.
        patience: norms in a row that are off until they are taken for the new baseline.
    """

    explosion: float
    vanishing: float
    memory: int = 50
    minimum: int = 20
    patience: int = 20
    count: int = 0
    level: float = 0.0
    scatter: float = 0.0
    off: int = 0

    def observe(
        self, norm: float, *, settled: bool = True, young: bool = False, heard: bool = True
    ) -> float | None:
        """Judge a finite norm, then learn from it; return its multiple of the baseline where that is off.

        Args:
            norm: of a gradient, ≥ 0.
            settled: whether the jump before it is far enough away for the norm to be learned from.
            young: whether there was a jump shortly before.
            heard: whether anything would be done about it; else it is learned, as in a Warmup.
        """
        if norm == 0:
            return self._vanished() if heard else None
        deviation = math.log(norm) - self.level
        if heard and self.count >= self.minimum:
            slack = DEVIATIONS * SIGMA_PER_MEAN_DEVIATION * self.scatter
            above = deviation > max(math.log(self.explosion), slack)
            if above or deviation < min(math.log(MARGIN * self.vanishing), -slack):
                self.off += 1
                if self.off >= self.patience:
                    self.level, self.off = self.level + deviation, 0
                    return math.exp(min(deviation, 700.0))
                bound = MARGIN * self.explosion if young else self.explosion
                sure = deviation > math.log(bound) or deviation < math.log(self.vanishing)
                return math.exp(min(deviation, 700.0)) if sure or self.off >= LASTING else None
            most = max(math.log(3), slack)
            deviation = min(max(deviation, -most), most)
        self.off = 0
        if settled:
            self.count += 1
            rate = max(1 / self.count, 1 / self.memory)
            self.level += rate * deviation
            if self.count > 1:
                self.scatter += max(1 / (self.count - 1), 1 / self.memory) * (abs(deviation) - self.scatter)
        return None

    def _vanished(self) -> float | None:
        """Judge a norm of 0, which has no logarithm: where it lasts, the baseline is forgotten."""
        if self.count < self.minimum:
            return None
        self.off += 1
        if self.off >= self.patience:
            self.count = self.off = 0
        return 0.0
