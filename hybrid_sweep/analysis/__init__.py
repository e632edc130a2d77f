"""Reading a sweep: tables, Pareto fronts, checklist, report and plots, without torch, ray or optuna."""

from hybrid_sweep.analysis.checklist import Item, check, recommendation
from hybrid_sweep.analysis.claims import HORIZON_ANALYSIS, STARTING_POINTS, Claim
from hybrid_sweep.analysis.columns import SETTINGS, TRIAL_COLUMNS, Column
from hybrid_sweep.analysis.comparison import Confirmation, comparisons
from hybrid_sweep.analysis.folder import Results, ResultsFolder, load_results
from hybrid_sweep.analysis.pareto import (
    MIN_QUALITY,
    best_point,
    configurations,
    hypervolume,
    pareto_front,
    speedup_column,
)
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
