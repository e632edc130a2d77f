"""What a point was worth: from how its runs ended to what the sampler is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from statistics import fmean
from typing import Any, Self

from optuna.trial import TrialState

from hybrid_sweep.spec.sweep import Constraints


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """How one run of a point ended; None stands for a number that was not measured or is not finite."""

    state: str
    reason: str
    speedup: float | None
    quality: float | None
    warning_rate: float | None
    memory_ratio: float | None
    behaviour: str

    @classmethod
    def from_result(cls, state: str, reason: str, result: Mapping[str, Any]) -> Self:
        """Read a result; a diverged run is worth nothing and has warned throughout."""
        diverged = state == "diverged"
        return cls(
            state,
            reason,
            finite(result.get("speedup_counted")),
            0.0 if diverged else finite(result.get("quality")),
            1.0 if diverged else finite(result.get("warning_rate")),
            finite(result.get("peak_memory_ratio")),
            str(result.get("behaviour") or ""),
        )


@dataclass(frozen=True, slots=True)
class TrialOutcome:
    """What Optuna is told of a point.

    Attributes:
        state: COMPLETE, PRUNED or FAIL.
        values: speedup_counted and quality, means over the seeds; None unless COMPLETE.
        constraints: by name, violated above 0; always the same names, as a Gaussian process needs.
        reason: why it is not COMPLETE.
        counts: whether it belongs to the front: every run done.
    """

    state: TrialState
    values: tuple[float, float] | None = None
    constraints: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""
    counts: bool = False


def judge(runs: Sequence[RunOutcome], limits: Constraints) -> TrialOutcome:
    """Return what Optuna is told of a point whose runs have ended."""
    for state, told in (("failed", TrialState.FAIL), ("pruned", TrialState.PRUNED)):
        if reasons := [run.reason for run in runs if run.state == state]:
            return TrialOutcome(told, reason=reasons[0])
    speedup, quality = mean([run.speedup for run in runs]), mean([run.quality for run in runs])
    if speedup is None or quality is None:
        name = "speedup_counted" if speedup is None else "quality"
        return TrialOutcome(TrialState.FAIL, reason=f"{name} is missing or not finite")
    diverged = fmean(run.state == "diverged" for run in runs)
    warned = [1.0 if run.warning_rate is None else run.warning_rate for run in runs]
    memory = [run.memory_ratio for run in runs if run.memory_ratio is not None]
    return TrialOutcome(
        TrialState.COMPLETE,
        (speedup, quality),
        violations(limits, diverged, quality, fmean(warned), fmean(memory) if memory else None),
        counts=diverged == 0,
    )


def violations(
    limits: Constraints, diverged: float, quality: float, warning_rate: float, memory_ratio: float | None
) -> dict[str, float]:
    """Return by how much each limit is exceeded; memory that was not measured exceeds none."""
    found = {"diverged": diverged}
    if limits.min_quality is not None:
        found["min_quality"] = limits.min_quality - quality
    if limits.max_divergence_rate is not None:
        found["max_divergence_rate"] = warning_rate - limits.max_divergence_rate
    if limits.max_memory_ratio is not None:
        found["max_memory_ratio"] = 0.0 if memory_ratio is None else memory_ratio - limits.max_memory_ratio
    return found


def mean(values: Sequence[float | None]) -> float | None:
    """Return the mean, or None where a value is missing."""
    present = [value for value in values if value is not None]
    return fmean(present) if present and len(present) == len(values) else None


def finite(value: Any) -> float | None:
    """Return a finite number; None for anything else, also as a journal writes it: null and "inf"."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if isfinite(number) else None
