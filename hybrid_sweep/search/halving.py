"""Early stopping: asynchronous successive halving by Pareto rank, at rungs of equal logical step."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hybrid_sweep.errors import UserError
from hybrid_sweep.search.front import better_than_last
from hybrid_sweep.search.outcome import finite
from hybrid_sweep.spec.sweep import EarlyStopping, SweepSpec

Key = tuple[str, int]
Values = tuple[float, float]


@dataclass(frozen=True, slots=True)
class RungPosition:
    """Where a run stands at a logical step: speedup_counted and quality, and whether it has predicted yet."""

    step: int
    values: Values | None
    predicted: bool

    @classmethod
    def from_report(cls, report: Mapping[str, Any]) -> RungPosition:
        """Read a report; values that are not finite are none."""
        speedup, quality = finite(report.get("speedup_counted")), finite(report.get("quality"))
        step = int(report.get("step", 0))
        return cls(
            step,
            None if speedup is None or quality is None else (speedup, quality),
            report.get("real_steps", report.get("backward_calls", 0)) < step,
        )


def rungs(rule: EarlyStopping, steps: int) -> list[int]:
    """Return the logical steps at which runs are judged: the first rung, and each `reduction` times on."""
    found: list[int] = []
    step = rule.first_rung * steps
    while round(step) < steps:
        if round(step) > (found[-1] if found else 0):
            found.append(round(step))
        step *= rule.reduction
    return found


def validate_rungs(spec: SweepSpec, steps: int) -> None:
    """Refuse reports so rare that no run could be judged at the first rung: none has reported before it.

    Raises:
        UserError: with the step of that rung.
    """
    judged = rungs(spec.early_stopping, steps) if spec.early_stopping else []
    if judged and spec.report_every > judged[0]:
        raise UserError(
            f"report_every={spec.report_every} leaves early stopping nothing to judge a run by at its first "
            f"rung, step {judged[0]} of {steps}: report more often, or leave early_stopping out"
        )


def value_at(rung: int, before: RungPosition | None, after: RungPosition) -> Values | None:
    """Return a run's values at a rung, on the line between the reports around it.

    None where they say nothing: the run had not predicted by then, or one of the two is not finite.
    """
    if after.step == rung:
        return after.values if after.predicted else None
    if before is None or not before.predicted or before.values is None or after.values is None:
        return None
    share = (rung - before.step) / (after.step - before.step)
    (x0, y0), (x1, y1) = before.values, after.values
    return x0 + share * (x1 - x0), y0 + share * (y1 - y0)


class Halving:
    """Says of each run, when it has passed a rung, whether it is to be stopped.

    A run goes on if it stands among the best 1/`reduction` of the runs with its seed that were judged at the
    rung so far, by non-dominated rank and then crowding distance (Li et al., 2020, with the order of Deb et
    al., 2002). While they are fewer than `reduction`, all go on. At a rung inside its warm-up, or before it
    has predicted, a run is not judged and not compared with: only its quality could speak. What it decides
    depends on the reports and their order alone.
    """

    def __init__(self, rule: EarlyStopping, steps: int) -> None:
        self._reduction = rule.reduction
        self._rungs = rungs(rule, steps)
        self._judged: defaultdict[tuple[int, int], list[Values]] = defaultdict(list)  # by rung and seed
        self._last: dict[Key, RungPosition] = {}
        self._passed: dict[Key, int] = {}

    def report(self, key: Key, report: Mapping[str, Any], warmup_steps: int) -> bool:
        """Take a report in; return whether the run is to be stopped.

        A run that was lost and reports earlier steps again is not judged again.
        """
        before, now = self._last.get(key), RungPosition.from_report(report)
        self._last[key] = now
        for index in range(self._passed.get(key, 0), len(self._rungs)):
            rung = self._rungs[index]
            if rung > now.step:
                break
            self._passed[key] = index + 1
            values = value_at(rung, before, now)
            if rung > warmup_steps and values is not None and not self._goes_on(index, key[1], values):
                return True
        return False

    def forget(self, key: Key) -> None:
        """Drop the last report of a run that has ended."""
        self._last.pop(key, None)

    def _goes_on(self, index: int, seed: int, values: Values) -> bool:
        judged = self._judged[index, seed]
        judged.append(values)
        places = int(len(judged) / self._reduction)
        return places < 1 or better_than_last(judged) < places
