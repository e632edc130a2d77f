"""Unit costs of this machine, kept between sweeps so that counted speedups stay comparable."""

from __future__ import annotations

import os
import platform

from hybrid_sweep.measure.costs import UnitCosts, measure_unit_costs
from hybrid_sweep.measure.run_cache import RunCache
from hybrid_sweep.trainer.config import HybridConfig
from hybrid_sweep.workload import Workload


def unit_costs(workload: Workload, config: HybridConfig, runs: RunCache, *, fresh: bool) -> UnitCosts:
    """Return the unit costs of `workload` on this machine: measured once, then read from the cache.

    Args:
        workload: what to train.
        config: the trainer's settings, as far as they cost time.
        runs: the workload's own.
        fresh: measure now, whatever the cache holds, and keep that.
    """
    parts = {"machine": [platform.node(), os.cpu_count()], "config": config.model_dump()}
    kept = runs.kept("costs", lambda: measure_unit_costs(workload, 0, config).to_dict(), fresh=fresh, **parts)
    return UnitCosts(**kept)
