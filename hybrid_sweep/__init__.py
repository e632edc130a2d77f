"""Sweeps of a hybrid predictive trainer, scored honestly.

The names below are public (`docs/api-stability.md`). They are imported when they are first used, so that
reading results needs neither torch nor ray.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hybrid_sweep.analysis.pareto import pareto_front
    from hybrid_sweep.api import ProgressBar, Results, Sweep, load_results, resume
    from hybrid_sweep.cluster.launch import resume_sweep, run_sweep
    from hybrid_sweep.confirm.sweep import confirm_sweep
    from hybrid_sweep.driver.callback import Callback
    from hybrid_sweep.errors import UserError
    from hybrid_sweep.spec.axes import Choice, Range
    from hybrid_sweep.spec.files import load_spec
    from hybrid_sweep.spec.sweep import SweepSpec
    from hybrid_sweep.trainer.config import HybridConfig
    from hybrid_sweep.trainer.presets import PRESETS
    from hybrid_sweep.trainer.trainer import HybridTrainer

_HOME = {
    "Callback": "driver.callback",
    "Choice": "spec.axes",
    "HybridConfig": "trainer.config",
    "HybridTrainer": "trainer.trainer",
    "PRESETS": "trainer.presets",
    "ProgressBar": "api",
    "Range": "spec.axes",
    "Results": "api",
    "Sweep": "api",
    "SweepSpec": "spec.sweep",
    "UserError": "errors",
    "confirm_sweep": "confirm.sweep",
    "load_results": "api",
    "load_spec": "spec.files",
    "pareto_front": "analysis.pareto",
    "resume": "api",
    "resume_sweep": "cluster.launch",
    "run_sweep": "cluster.launch",
}

__all__ = [
    "PRESETS",
    "Callback",
    "Choice",
    "HybridConfig",
    "HybridTrainer",
    "ProgressBar",
    "Range",
    "Results",
    "Sweep",
    "SweepSpec",
    "UserError",
    "__version__",
    "confirm_sweep",
    "load_results",
    "load_spec",
    "pareto_front",
    "resume",
    "resume_sweep",
    "run_sweep",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version("hybrid-sweep")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
