"""The hybrid predictive trainer: a library of its own, without ray or pandas. Torch loads at first use."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hybrid_sweep.trainer.config import HybridConfig, HybridTrainerConfig
    from hybrid_sweep.trainer.divergence.monitor import DivergenceLevel, DivergenceMonitor
    from hybrid_sweep.trainer.phases import Phase
    from hybrid_sweep.trainer.presets import PRESETS
    from hybrid_sweep.trainer.records import TrainingDiverged
    from hybrid_sweep.trainer.trainer import HybridTrainer

_HOME = {
    "PRESETS": "presets",
    "DivergenceLevel": "divergence.monitor",
    "DivergenceMonitor": "divergence.monitor",
    "HybridConfig": "config",
    "HybridTrainer": "trainer",
    "HybridTrainerConfig": "config",
    "Phase": "phases",
    "TrainingDiverged": "records",
}

__all__ = [
    "PRESETS",
    "DivergenceLevel",
    "DivergenceMonitor",
    "HybridConfig",
    "HybridTrainer",
    "HybridTrainerConfig",
    "Phase",
    "TrainingDiverged",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
