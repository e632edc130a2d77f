"""The Pareto front as plain rows, for a terminal: pandas takes longer to load than a journal to read."""

from __future__ import annotations

import math
from collections import defaultdict
from itertools import chain
from statistics import fmean
from typing import Any

from hybrid_sweep.analysis.intervals import half_width
from hybrid_sweep.analysis.live_front import LiveFront
from hybrid_sweep.analysis.objectives import speedup_column
from hybrid_sweep.store.columns import TRIAL_COLUMNS
from hybrid_sweep.store.folder import SweepFolder
from hybrid_sweep.store.journal import Journal
from hybrid_sweep.store.runs import number, run_rows


def front_rows(folder: SweepFolder) -> list[dict[str, Any]]:
    """Return the front as `ResultsFolder.table` does: the ids, seeds and numbers of its rows, without words.

    Raises:
        UserError: the journal or the manifest is corrupt.
    """
    speedup = speedup_column(folder.manifest)
    runs = run_rows(Journal.events(folder.journal.path, skip=("reported",)))
    points = defaultdict(list)
    for run in runs.values():
        if not run.get("arm"):
            points[run["trial_id"]].append(run)
    front = LiveFront((0.0, 0.0), repeats=max(map(len, points.values()), default=1))
    for run in chain(*points.values()):
        front.add(run["trial_id"], run["state"], number(run.get(speedup)), number(run.get("quality")))
    rows = [_means(points[point.trial_id]) for point in front.points]
    if len({trial_id for trial_id, _ in runs}) < len(runs):
        for row, point in zip(rows, front.points, strict=True):
            for name in (speedup, "quality"):
                half = half_width([number(run[name]) for run in points[point.trial_id]])
                row |= {f"{name}_low": row[name] - half, f"{name}_high": row[name] + half}
    return rows


def _means(runs: list[dict[str, Any]]) -> dict[str, Any]:
    seeds = sorted({run["seed"] for run in runs})
    row = {"trial_id": runs[0]["trial_id"], "seed": ",".join(map(str, seeds))}
    for column in TRIAL_COLUMNS:
        if column.kind != "text" and column.name != "seed":
            measured = [value for run in runs if not math.isnan(value := number(run.get(column.name)))]
            row[column.name] = fmean(measured) if measured else math.nan
    return row
