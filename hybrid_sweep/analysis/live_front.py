"""The front of a sweep while it runs: kept up to date run by run, without looking back at the others."""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass

SLOPE_SHARE, SLOPE_POINTS = 0.2, 10  # the slope looks back over this share of the points, at least so many


@dataclass(frozen=True, slots=True)
class FrontPoint:
    """One configuration on the front; with several seeds, its means."""

    trial_id: str
    speedup: float
    quality: float

    def beats(self, other: FrontPoint) -> bool:
        """Return whether this point is nowhere worse and somewhere better."""
        return (
            self.speedup >= other.speedup
            and self.quality >= other.quality
            and (self.speedup, self.quality) != (other.speedup, other.quality)
        )


class LiveFront:
    """A front that takes one ended run at a time, in time that depends on the front alone.

    A point counts when all its seeds have ended, by its means, as in `pareto_front`. Where one of them is
    not done or has no finite numbers, the point counts and stays off the front. One whose seed was pruned
    counts at once, for its other seeds are not started any more.

    Args:
        reference: corner of the hypervolume, `(speedup, quality)`.
        repeats: seeds a point.

    Attributes:
        points: the front, fastest first.
    """

    def __init__(self, reference: tuple[float, float], repeats: int = 1) -> None:
        self.points: list[FrontPoint] = []
        self._reference = reference
        self._repeats = repeats
        self._seeds: dict[str, list[tuple[float, float]]] = {}  # of points that lack some
        self._pruned: set[str] = set()  # points of which another seed may still end
        self._history = array("d")  # hypervolume after each point

    @property
    def ended(self) -> int:
        """How many points have ended, in whichever state."""
        return len(self._history)

    @property
    def hypervolume(self) -> float:
        """The area that the front dominates beyond the reference."""
        return self._history[-1] if self._history else 0.0

    @property
    def window(self) -> int:
        """Over how many points `slope` looks back: the last fifth, at least ten, at most all."""
        return min(max(math.ceil(SLOPE_SHARE * self.ended), SLOPE_POINTS), self.ended)

    @property
    def slope(self) -> float | None:
        """By how much the hypervolume grew a point, over the last `window`; None before the first."""
        return self.growth(self.window) / self.window if self.window else None

    def growth(self, points: int) -> float:
        """Return by how much the hypervolume grew over the last `points` points."""
        before = self.ended - points
        return self.hypervolume - (self._history[before - 1] if before > 0 else 0.0)

    def seeds_in(self, trial_id: str) -> int:
        """Return how many seeds of an open point are in; all of them where it was pruned."""
        return self._repeats if trial_id in self._pruned else len(self._seeds.get(trial_id, ()))

    def add(self, trial_id: str, state: str, speedup: float, quality: float) -> None:
        """Take a run that has ended; each run of a point once."""
        if trial_id in self._pruned:
            return
        if state == "pruned" and self._repeats > 1:
            self._seeds.pop(trial_id, None)
            self._pruned.add(trial_id)
            self._history.append(self.hypervolume)
            return
        seeds = self._seeds.setdefault(trial_id, [])
        seeds.append((speedup, quality) if state == "done" else (math.nan, math.nan))
        if len(seeds) < self._repeats:
            return
        del self._seeds[trial_id]
        grown = False
        if all(math.isfinite(value) for pair in seeds for value in pair):
            means = (math.fsum(values) / len(seeds) for values in zip(*seeds, strict=True))
            grown = self._insert(FrontPoint(trial_id, *means))
        self._history.append(self._area() if grown else self.hypervolume)

    def _insert(self, point: FrontPoint) -> bool:
        if any(other.beats(point) for other in self.points):
            return False
        kept = [other for other in self.points if not point.beats(other)]
        self.points = sorted([*kept, point], key=lambda p: (-p.speedup, -p.quality, p.trial_id))
        return True

    def _area(self) -> float:
        slowest, floor = self._reference
        area = 0.0
        for point in self.points:  # ever slower and better: each adds the strip above the one before
            if point.speedup > slowest and point.quality > floor:
                area += (point.speedup - slowest) * (point.quality - floor)
                floor = point.quality
        return area
