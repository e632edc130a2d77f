"""What every peer does alike: the sweep's points, one reference, and a trial of one point."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any, Self

import torch

from hybrid_sweep.measure.costs import UnitCosts, measure_unit_costs
from hybrid_sweep.measure.hybrid_run import HybridRun
from hybrid_sweep.measure.reference import Reference, reference_run
from hybrid_sweep.spec.axes import values_of
from hybrid_sweep.spec.files import load_spec, parse_changes
from hybrid_sweep.spec.sweep import SweepSpec
from hybrid_sweep.trainer.config import HybridConfig
from hybrid_sweep.workload import Workload, load_workload

ROWS = "rows.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What the trials of a peer share: made once in its script, and sent to its workers as it sends things.

    Attributes:
        spec: the sweep.
        reference: plain training with the sweep's seed.
        costs: unit costs.
    """

    spec: SweepSpec
    reference: Reference
    costs: UnitCosts

    @classmethod
    def prepare(cls, spec: SweepSpec) -> Self:
        """Train plainly and measure the unit costs, in this process."""
        workload = _workload_of(spec)
        return cls(
            spec=spec,
            reference=reference_run(workload, spec.seed, spec.steps or workload.steps, spec.eval_every),
            costs=measure_unit_costs(workload, spec.seed, HybridConfig(**spec.trainer)),
        )

    def axes(self) -> dict[str, list[Any]]:
        """Return the values of each axis of the grid."""
        return {name: values_of(axis) for name, axis in self.spec.space.items()}

    def points(self) -> list[dict[str, Any]]:
        """Return the grid, in the order in which we run it."""
        axes = self.axes()
        return [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]

    def run(self, point: dict[str, Any], report: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        """Train one point, reporting as it goes, and return its row."""
        began = time.time()
        config = HybridConfig(**{**self.spec.trainer, **point})
        workload, every = _workload_of(self.spec), self.spec.report_every
        trial = HybridRun(workload, config, self.reference, self.costs, report_every=every)
        while not trial.done:
            if told := trial.report():
                report(told)
        return {**point, **trial.result(), "state": trial.state, "began": began, "ended": time.time()}


def arguments() -> argparse.Namespace:
    """Read a peer's command line: `spec`, `concurrency`, `out` (where it may write), and Ray's own flag."""
    parser = argparse.ArgumentParser()
    parser.add_argument("sweep")
    parser.add_argument("--concurrency", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--set", dest="changes", action="append", default=[])
    parser.add_argument("--reuse-actors", action="store_true")
    options = parser.parse_args()
    options.spec = load_spec(options.sweep, parse_changes(options.changes))
    return options


def write_rows(out: Path, rows: list[dict[str, Any]]) -> None:
    """Hand the rows over."""
    (out / ROWS).write_text(json.dumps(rows), encoding="utf-8")


def _workload_of(spec: SweepSpec) -> Workload:
    return _built(spec.workload.name, json.dumps(spec.workload.keywords))


@lru_cache(maxsize=1)
def _built(name: str, keywords: str) -> Workload:
    """Build the workload, whose data it keeps, once a process, which trains on one thread."""
    torch.set_num_threads(1)
    return load_workload(name, **json.loads(keywords))
