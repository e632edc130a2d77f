"""The original's own results file, `parameter_sweep_<time>.json`: a list of records, one a trial and seed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import pandas as pd

from hybrid_sweep.analysis.pareto import configurations
from hybrid_sweep.analysis.table import hybrid_runs
from hybrid_sweep.errors import Settings


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """One row of a table of the seed; `quality` is a ratio, 1.0 for as good as plain training."""

    max_predict_steps: int
    correction_interval: int
    speedup: float
    quality: float
    backward_pct: float | None = None
    verdict: str | None = None
    source: Literal["seed (claimed)"] = "seed (claimed)"


def _claim(horizon: int, interval: int, speedup: float, quality_pct: float, *more: float | str) -> Claim:
    backward_pct, verdict = more or (None, None)
    return Claim(
        max_predict_steps=horizon,
        correction_interval=interval,
        speedup=speedup,
        quality=round(quality_pct / 100, 6),
        backward_pct=None if backward_pct is None else float(backward_pct),
        verdict=None if verdict is None else str(verdict),
    )


STARTING_POINTS = (  # seed, Recommended Starting Points: what it expects
    _claim(50, 0, 3.5, 99.5),
    _claim(50, 10, 3.8, 99.7),
    _claim(75, 15, 4.5, 99.9),
    _claim(100, 20, 5.0, 99.5),
    _claim(150, 25, 5.5, 99.0),
)


HORIZON_ANALYSIS = (  # seed, Prediction Horizon Analysis: what it says was found
    _claim(25, 0, 2.3, 99.9, 44, "stable"),
    _claim(50, 0, 3.5, 99.5, 29, "stable"),
    _claim(50, 10, 3.8, 99.7, 29, "better quality"),
    _claim(75, 15, 4.5, 99.9, 22, "optimal"),
    _claim(100, 20, 5.0, 99.2, 17, "monitor quality"),
    _claim(150, 25, 6.5, 97.8, 12, "quality degraded"),
)


TABLES = {"starting points": STARTING_POINTS, "horizon analysis": HORIZON_ANALYSIS}


COLUMNS = (
    *("claimed_in", "trial_id", "max_predict_steps", "correction_interval"),
    *("claimed_speedup", "speedup", "claimed_quality", "quality", "claimed_backward_pct", "backward_pct"),
)


def claims_table(trials: pd.DataFrame, speedup: str = "speedup") -> pd.DataFrame:
    """Return the claims beside what this sweep has measured: a row a claim and configuration of its H and I.

    Args:
        trials: of the sweep.
        speedup: the column that is its speed.
    """
    done = configurations(trials)
    rows = []
    for table, claims in TABLES.items():
        for claim in claims:
            same = done[
                (done["max_predict_steps"] == claim.max_predict_steps)
                & (done["correction_interval"] == claim.correction_interval)
            ]
            for row in same.to_dict("records"):
                backward = 100 - row["backward_reduction_pct"]
                measured = (claim.speedup, row[speedup], claim.quality, row["quality"])
                share = (claim.backward_pct, backward)
                setting = (claim.max_predict_steps, claim.correction_interval)
                rows.append((table, row["trial_id"], *setting, *measured, *share))
    return pd.DataFrame(rows, columns=list(COLUMNS))


_SEED_NAMES = {"speedup": "speedup_factor", "quality": "quality_score"}


class SweepRecord(Settings):
    """One trial as the original's analyzer reads it; `source` keeps it apart from what is only claimed."""

    trial_id: str
    seed: int
    state: Literal["done", "diverged", "pruned", "failed", "running"]
    reason: str
    max_predict_steps: int | None
    correction_interval: int | None
    confidence_threshold: float | None
    divergence_threshold: float | None
    backward_reduction_pct: float | None
    speedup_factor: float | None
    speedup_counted: float | None
    speedup_bound: float | None
    quality_score: float | None
    quality_vs_truncated: float | None
    quality_vs_frozen: float | None
    val_loss: float | None
    reference_val_loss: float | None
    realised_horizon_mean: float | None
    micro_corrections: int | None
    max_confidence: float | None
    source: Literal["measured"] = "measured"


def seed_records(trials: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the records of a table of trials, checked against `SweepRecord`; controls are none.

    Raises:
        UserError: a value that the record does not allow.
    """
    table = hybrid_runs(trials).rename(columns=_SEED_NAMES)
    table = table[[name for name in SweepRecord.model_fields if name != "source"]]
    rows = json.loads(table.to_json(orient="records", double_precision=12))
    return [SweepRecord(**row).model_dump() for row in rows]


def seed_file_name(created: str | None) -> str:
    """Return the file's name for a sweep created at `created` (ISO 8601); now, where that is not known."""
    try:
        moment = datetime.fromisoformat(created or "")
    except ValueError:
        moment = datetime.now(UTC)
    return f"parameter_sweep_{moment.astimezone(UTC):%Y%m%dT%H%M%SZ}.json"
