"""Recorded: runs of an earlier sweep, for a back-end that simulates them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet
from pydantic import BaseModel, Field

from hybrid_sweep.analysis.cells import settings_in
from hybrid_sweep.control import ABLATION
from hybrid_sweep.driver.backend import Key, Run
from hybrid_sweep.errors import UserError, brief
from hybrid_sweep.results import ResultsFolder
from hybrid_sweep.search.space import complete_hash
from hybrid_sweep.simulation.backend import SimulatedRun
from hybrid_sweep.trainer.config import HybridConfig

OF_ONE_SWEEP = ("attempts", "number", "source")
METADATA = b"hybrid_sweep"  # key of a table of points: trainer, steps, seed and unit costs, as JSON


class _UnitCosts(BaseModel):
    plain_step: float = Field(gt=0, allow_inf_nan=False)


class _About(BaseModel):
    """What a table of points says of itself."""

    trainer: dict[str, Any]
    steps: int = Field(gt=0)
    seed: int = Field(ge=0, lt=2**63)
    unit_costs: _UnitCosts
    step_seconds: float | None = Field(default=None, gt=0, allow_inf_nan=False)


class RecordedRuns:
    """Runs as they were recorded, by configuration and seed: an `outcome` for `SimulatedBackend`.

    Args:
        runs: by `complete_hash` of the configuration (of a control, its settings as JSON), and seed.
    """

    def __init__(self, runs: Mapping[Key, SimulatedRun]) -> None:
        self._runs = dict(runs)

    @classmethod
    def from_folder(cls, path: Path | str) -> RecordedRuns:
        """Read the finished runs of a results folder; their seconds are those of the training.

        Raises:
            UserError: `path` is not a results folder.
        """
        folder = ResultsFolder.open(path)
        reports: dict[Key, list[tuple[float, dict[str, Any]]]] = {}
        for row in folder.steps().to_dict("records"):
            run = reports.setdefault((row.pop("trial_id"), row.pop("seed")), [])
            report = {str(name): value for name, value in row.items() if not _missing(value)}
            before = run[-1][0] if run else 0.0
            run.append((max(float(report.get("seconds", report["step"])), before), report))
        runs = {}
        trials = folder.trials().drop(columns=list(OF_ONE_SWEEP), errors="ignore")
        for row in trials[trials["state"].isin(["done", "diverged", "failed"])].to_dict("records"):
            result = {str(name): value for name, value in row.items() if not _missing(value)}
            key = result.pop("trial_id"), result.pop("seed")
            what = _settings(settings_in(result.pop("config", ""), key[0]), result.pop("arm", ""))
            runs[what, key[1]] = SimulatedRun(
                reports=tuple(reports.get(key, ())),
                state=result.pop("state"),
                reason=result.pop("reason", ""),
                result=result,
            )
        return cls(runs)

    @classmethod
    def from_parquet(cls, path: Path | str) -> RecordedRuns:
        """Read a table of points as `benchmarks/record_points.py` writes it; seconds are counted work.

        Tables recorded before plain steps held their batches lack `step_seconds`.

        Raises:
            UserError: `path` holds no such table.
        """
        try:
            table = pyarrow.parquet.read_table(path)
            about = _About.model_validate_json((table.schema.metadata or {})[METADATA])
            missing = {"state", "reports.step", "reports.speedup_counted"} - set(table.column_names)
            if missing:
                raise ValueError(f"it has no {', '.join(sorted(missing))}")
        except (OSError, KeyError, ValueError) as error:
            raise UserError(
                f"{path} is no table of recorded points ({brief(error)}): record one first"
            ) from None
        settings = [name for name in table.column_names if name in HybridConfig.model_fields]
        runs = {}
        for row in table.to_pylist():
            config = {**about.trainer, **{name: row.pop(name) for name in settings}}
            lists = {name: row.pop(name) for name in list(row) if name.startswith("reports.")}
            names = [name.removeprefix("reports.") for name in lists]
            reports = [dict(zip(names, values, strict=True)) for values in zip(*lists.values(), strict=True)]
            step_seconds = about.step_seconds or about.unit_costs.plain_step
            runs[complete_hash(config), about.seed] = SimulatedRun(
                reports=tuple((r["step"] * step_seconds / r["speedup_counted"], r) for r in reports),
                state=row.pop("state"),
                result={**row, "steps": about.steps},
            )
        return cls(runs)

    def __len__(self) -> int:
        """How many runs there are."""
        return len(self._runs)

    def __call__(self, run: Run) -> SimulatedRun:
        """Return what was recorded of this configuration and seed.

        Raises:
            UserError: nothing was.
        """
        try:
            return self._runs[_settings(run.config, run.arm), run.seed]
        except KeyError:
            raise UserError(
                f"{run.trial_id} with seed {run.seed} was not recorded: search among those that were"
            ) from None


def _settings(config: Mapping[str, Any], arm: str) -> str:
    """Return what runs of the same settings have in common, also where only some say a default."""
    if arm in ("", ABLATION):
        return complete_hash(config)
    return json.dumps(dict(config), sort_keys=True)


def _missing(value: Any) -> bool:
    return value is None or value != value or value == ""
