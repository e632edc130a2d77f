"""The original's four analyzer lines: which configuration, how fast, how good, and what to do about it."""

from __future__ import annotations

import pandas as pd

from hybrid_sweep.analysis.checklist import Row, check, recommendation
from hybrid_sweep.analysis.objectives import MIN_QUALITY
from hybrid_sweep.analysis.pareto import recommended
from hybrid_sweep.analysis.table import hybrid_runs
from hybrid_sweep.analysis.verdict import UNCONFIRMED


def analyze(
    trials: pd.DataFrame,
    speedup: str = "speedup",
    min_quality: float = MIN_QUALITY,
    verdict: str = UNCONFIRMED,
    kind: str = "loss_ratio",
) -> list[str]:
    """Return the four lines from a table of trials (original, analyze_sweep.py).

    What is recommended is the verdict, which compares with controls on fresh seeds; the checklist, which
    looks at the sweep's own runs, is told beside it by its name.

    Args:
        trials: all runs of the sweep, its controls among them.
        speedup: the column that is the sweep's speed.
        min_quality: the bar.
        verdict: recommendation of the sweep's verdict.
        kind: how its workload compares held-out results, a `workload.Quality`.
    """
    best = recommended(trials, speedup, kind, min_quality)
    trials = hybrid_runs(trials)
    if best is None:
        return [
            "Optimal Config: none, no configuration is done",
            "Speedup: n/a",
            "Quality: n/a",
            f"Recommendation: {verdict}; checklist: nothing was measured to the end",
        ]
    return [
        f"Optimal Config: {_settings(best)}",
        f"Speedup: {best[speedup]:.2f}×{' (counted)' if speedup != 'speedup' else ''}",
        f"Quality: {100 * best['quality']:.2f}%",
        f"Recommendation: {verdict}; "
        f"checklist on this sweep alone: {recommendation(check(best, trials, speedup=speedup))}",
    ]


def _settings(row: Row) -> str:
    values = [row[name] for name in ("max_predict_steps", "correction_interval", "confidence_threshold")]
    if any(pd.isna(value) for value in values):
        return str(row["trial_id"])
    horizon, interval, threshold = values
    text = f"H={horizon:.0f}, I={interval:.0f}, σ={_shown(threshold)}"
    says_it_all = row["trial_id"] == f"H{horizon:03.0f}_I{interval:02.0f}_C{threshold:.2f}"
    return text if says_it_all else f"{text} ({row['trial_id']})"


def _shown(threshold: float) -> str:
    """Return a threshold with two decimals, or with as many as it has: 0.001 is not 0.00."""
    text = f"{threshold:.2f}"
    return text if float(text) == threshold else f"{threshold:g}"
