"""Sweeps of a hybrid predictive trainer, scored honestly.

The names below are imported when they are first used, so that reading results needs neither torch nor ray.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hybrid_sweep.analysis.pareto import pareto_front
    from hybrid_sweep.cluster.launch import resume_sweep, run_sweep
    from hybrid_sweep.confirm.sweep import confirm_sweep
    from hybrid_sweep.results import load_results
    from hybrid_sweep.spec.sweep import SweepSpec, load_spec
    from hybrid_sweep.trainer.config import HybridConfig
    from hybrid_sweep.trainer.trainer import HybridTrainer

__all__ = [
    "HybridConfig",
    "HybridTrainer",
    "SweepSpec",
    "confirm_sweep",
    "load_results",
    "load_spec",
    "pareto_front",
    "resume_sweep",
    "run_sweep",
]

_HOME = {
    "HybridConfig": "hybrid_sweep.trainer.config",
    "HybridTrainer": "hybrid_sweep.trainer.trainer",
    "SweepSpec": "hybrid_sweep.spec.sweep",
    "confirm_sweep": "hybrid_sweep.confirm.sweep",
    "load_results": "hybrid_sweep.results",
    "load_spec": "hybrid_sweep.spec.sweep",
    "pareto_front": "hybrid_sweep.analysis.pareto",
    "resume_sweep": "hybrid_sweep.cluster.launch",
    "run_sweep": "hybrid_sweep.cluster.launch",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
