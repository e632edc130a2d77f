"""Unit costs of this machine, kept between sweeps so that counted speedups stay comparable."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping
from functools import partial

from pydantic import TypeAdapter

from hybrid_sweep.measure.costs import WARM_UP_STEPS, UnitCosts, measure_unit_costs, seconds_allowed
from hybrid_sweep.measure.hybrid_run import FORMAT
from hybrid_sweep.measure.reference import OnProgress, ignore_progress
from hybrid_sweep.measure.run_cache import RunCache
from hybrid_sweep.trainer.config import HybridConfig
from hybrid_sweep.workload import Workload

COSTS = TypeAdapter(UnitCosts)


def unit_costs(
    workload: Workload,
    config: HybridConfig,
    runs: RunCache,
    *,
    fresh: bool,
    steps: int | None = None,
    share: float = 1.0,
) -> UnitCosts:
    """Return the unit costs of `workload` on this machine: measured once, then read from the cache.

    Args:
        workload: what to train.
        config: the trainer's settings, as far as they cost time.
        runs: the workload's own.
        fresh: measure now, whatever the cache holds, and keep that.
        steps: as of `measure_unit_costs`.
        share: as there.
    """
    measure = partial(measure_unit_costs, workload, 0, config, steps, share)
    return runs.kept("costs", COSTS, measure, fresh=fresh, **_parts(config))


def unit_costs_of_all(
    workload: Workload,
    configs: Mapping[str, HybridConfig],
    runs: RunCache,
    steps: int,
    *,
    fresh: bool,
    on_progress: OnProgress = ignore_progress,
) -> dict[str, UnitCosts]:
    """Return the unit costs of several settings, as many as there is time to measure beside plain training.

    The first one is always measured. What a step costs is known then, and those that there is no time for
    are left out: where a step takes so long, the predictor hardly counts.

    Args:
        workload: what to train.
        configs: by a name, the trainer's settings.
        runs: the workload's own.
        steps: N of plain training.
        fresh: measure now, whatever the cache holds.
        on_progress: told how many are done, and of how many.
    """
    found: dict[str, UnitCosts] = {}
    began = time.monotonic()
    for number, (name, config) in enumerate(configs.items()):
        on_progress(number, len(configs))
        if found and (fresh or runs.get("costs", COSTS, **_parts(config)) is None):
            first = next(iter(found.values()))
            a_step = first.plain_step + first.batch
            least = (WARM_UP_STEPS + config.full_steps) * a_step
            if time.monotonic() - began + least > seconds_allowed(steps, a_step):
                continue
        share = 1 / len(configs)
        found[name] = unit_costs(workload, config, runs, fresh=fresh, steps=steps, share=share)
    return found


def _parts(config: HybridConfig) -> dict[str, object]:
    machine = [platform.node(), os.cpu_count()]
    return {"machine": machine, "trainer": FORMAT, "config": config.model_dump()}
