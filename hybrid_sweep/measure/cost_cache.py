"""Unit costs of this machine, kept between sweeps so that counted speedups stay comparable."""

from __future__ import annotations

import inspect
import json
import os
import platform
import sys
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import platformdirs
import torch

from hybrid_sweep.measure.costs import COST_NAMES, UnitCosts, measure_unit_costs
from hybrid_sweep.trainer.config import HybridConfig
from hybrid_sweep.trainer.costs import CostMeter
from hybrid_sweep.workload import Workload


def unit_costs(
    workload: Workload, keywords: dict[str, Any], config: HybridConfig, *, fresh: bool
) -> UnitCosts:
    """Return the unit costs of `workload` on this machine: measured once, then read from the user's cache.

    They are measured anew for another workload file or keywords, trainer code, torch, device or machine.

    Args:
        workload: what to train, built with `keywords`.
        keywords: the workload's own, and its device.
        config: the trainer's settings, as far as they cost time.
        fresh: measure now, whatever the cache holds, and keep that.
    """
    path = (
        platformdirs.user_cache_path("hybrid-sweep")
        / "unit_costs"
        / f"{_key(workload, keywords, config)}.json"
    )
    if not fresh and (kept := _read(path)):
        return kept
    costs = measure_unit_costs(workload, 0, config)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(json.dumps(costs.to_dict()), encoding="utf-8")
    temporary.replace(path)
    return costs


def _key(workload: Workload, keywords: dict[str, Any], config: HybridConfig) -> str:
    ours = sorted(Path(inspect.getfile(CostMeter)).parent.rglob("*.py"))
    code = sha256(b"".join(file.read_bytes() for file in [Path(inspect.getfile(type(workload))), *ours]))
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    parts = {
        "machine": [platform.node(), platform.machine(), os.cpu_count(), name],
        "versions": [version("hybrid-sweep"), torch.__version__, sys.version],
        "threads": torch.get_num_threads(),
        "workload": [type(workload).__qualname__, code.hexdigest(), keywords],
        "config": config.model_dump(),
    }
    return sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:24]


def _read(path: Path) -> UnitCosts | None:
    """Return what is kept; a file that is missing or damaged counts as nothing."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return UnitCosts(**{name: float(values[name]) for name in COST_NAMES})
    except (OSError, ValueError, KeyError, TypeError):
        return None
