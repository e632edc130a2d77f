"""The seed's own results file, `parameter_sweep_<time>.json`: a list of records, one a trial and seed."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, Literal

import pandas as pd

from hybrid_sweep.analysis.table import hybrid_runs
from hybrid_sweep.errors import Settings

_SEED_NAMES = {"speedup": "speedup_factor", "quality": "quality_score"}


class SweepRecord(Settings):
    """One trial as the seed's analyzer reads it; `source` keeps it apart from what the seed only claims."""

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
