"""Warm start: what earlier sweeps of the same workload have found out already."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from hybrid_sweep.analysis.cells import settings_in
from hybrid_sweep.analysis.pareto import configurations
from hybrid_sweep.analysis.table import read_trials
from hybrid_sweep.credentials import public
from hybrid_sweep.errors import UserError
from hybrid_sweep.search.asked import PriorPoint
from hybrid_sweep.search.dimensions import is_whole, placed
from hybrid_sweep.search.outcome import finite
from hybrid_sweep.search.space import complete_hash
from hybrid_sweep.spec.sweep import SweepSpec
from hybrid_sweep.store.folder import SweepFolder
from hybrid_sweep.trainer.config import HybridConfig
from hybrid_sweep.workload import SEPARATOR, is_known, workload_file

VALUES = ("speedup_counted", "quality", "warning_rate", "peak_memory_ratio")


def known_points(folder: SweepFolder, spec: SweepSpec) -> list[PriorPoint]:
    """Return the points of an earlier sweep that are done on all its seeds, with their means.

    Args:
        folder: of the earlier sweep.
        spec: the sweep that is to learn from them.

    Raises:
        UserError: the earlier sweep trained another workload or another number of steps.
    """
    manifest = folder.manifest
    _validate_same_workload(folder, manifest, spec)
    trials = read_trials(folder)
    runs = trials["trial_id"].value_counts()
    seeds = len(manifest.get("seeds") or [0])
    done = configurations(trials)
    return [
        _known(folder, spec, row)
        for row in done.to_dict("records")
        if runs[row["trial_id"]] >= seeds and row["config"]
    ]


def _known(folder: SweepFolder, spec: SweepSpec, row: dict[Any, Any]) -> PriorPoint:
    try:
        config = HybridConfig(**settings_in(row["config"], row["trial_id"])).model_dump()
    except ValueError as error:
        raise UserError(
            f"{row['trial_id']} of {folder.path} cannot be learned from ({error}): leave it out of warm_start"
        ) from None
    params = placed(spec.space, config)
    inside = is_whole(spec.space, params)
    return PriorPoint(
        config=config,
        params=params
        if inside and complete_hash({**spec.trainer, **params}) == complete_hash(config)
        else None,
        values={name: None if pd.isna(row[name]) else finite(row[name]) for name in VALUES},
        source=f"{folder.path}: {row['trial_id']}",
    )


def _is_moved(was: Any, now: Mapping[str, Any], manifest: Mapping[str, Any]) -> bool:
    """Return whether the workload is the earlier one with its file at another place."""
    if not isinstance(was, Mapping) or {**was, "name": ""} != {**now, "name": ""}:
        return False
    before, after = (str(each["name"]).rpartition(SEPARATOR)[2] for each in (was, now))
    file = workload_file(now["name"])
    return before == after and file is not None and file.is_file() and is_known(manifest.get("code"), file)


def _validate_same_workload(folder: SweepFolder, manifest: dict[str, Any], spec: SweepSpec) -> None:
    recorded = manifest.get("spec") or {}
    was, now = recorded.get("workload"), spec.model_dump(mode="json")["workload"]
    was, now = public(was) if isinstance(was, Mapping) else was, public(now)
    if was != now and not _is_moved(was, now, manifest):
        raise UserError(
            f"{folder.path} trained {was} and this sweep trains {now}: "
            "only sweeps of the same workload and keywords can be learned from; leave it out of warm_start"
        )
    steps = recorded.get("steps") if spec.steps is None else manifest.get("steps") or recorded.get("steps")
    if steps != spec.steps:
        raise UserError(
            f"{folder.path} trained {steps or 'as many steps as its workload says'} and this sweep trains "
            f"{spec.steps or 'as many steps as its workload says'}: set steps to the same, "
            f"or leave it out of warm_start"
        )
