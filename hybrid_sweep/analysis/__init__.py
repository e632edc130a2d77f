"""Reading a sweep: tables, Pareto fronts, checklist, report and plots, without torch, ray or optuna.

The names below are imported when they are first used, so that a look at a sweep does not wait for pandas.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hybrid_sweep.analysis.checklist import Item, check, recommendation
    from hybrid_sweep.analysis.claims import HORIZON_ANALYSIS, STARTING_POINTS, Claim
    from hybrid_sweep.analysis.columns import SETTINGS, TRIAL_COLUMNS, Column
    from hybrid_sweep.analysis.comparison import Confirmation, comparisons
    from hybrid_sweep.analysis.folder import Results, ResultsFolder, load_results
    from hybrid_sweep.analysis.pareto import best_point, configurations, hypervolume, pareto_front
    from hybrid_sweep.analysis.plane import MIN_QUALITY, speedup_column
    from hybrid_sweep.analysis.status import SweepStatus, status_lines, sweep_status
    from hybrid_sweep.analysis.summary import analyzer_lines
    from hybrid_sweep.analysis.verdict import Verdict

__all__ = [
    "HORIZON_ANALYSIS",
    "MIN_QUALITY",
    "SETTINGS",
    "STARTING_POINTS",
    "TRIAL_COLUMNS",
    "Claim",
    "Column",
    "Confirmation",
    "Item",
    "Results",
    "ResultsFolder",
    "SweepStatus",
    "Verdict",
    "analyzer_lines",
    "best_point",
    "check",
    "comparisons",
    "configurations",
    "hypervolume",
    "load_results",
    "pareto_front",
    "recommendation",
    "speedup_column",
    "status_lines",
    "sweep_status",
]

_HOME = {
    "HORIZON_ANALYSIS": "claims",
    "MIN_QUALITY": "plane",
    "SETTINGS": "columns",
    "STARTING_POINTS": "claims",
    "TRIAL_COLUMNS": "columns",
    "Claim": "claims",
    "Column": "columns",
    "Confirmation": "comparison",
    "Item": "checklist",
    "Results": "folder",
    "ResultsFolder": "folder",
    "SweepStatus": "status",
    "Verdict": "verdict",
    "analyzer_lines": "summary",
    "best_point": "pareto",
    "check": "checklist",
    "comparisons": "comparison",
    "configurations": "pareto",
    "hypervolume": "pareto",
    "load_results": "folder",
    "pareto_front": "pareto",
    "recommendation": "checklist",
    "speedup_column": "plane",
    "status_lines": "status",
    "sweep_status": "status",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
