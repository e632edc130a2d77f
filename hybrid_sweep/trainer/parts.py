"""Parts: what a run is made of; its trainer makes them, and whoever works on the run shares them."""

from __future__ import annotations

from dataclasses import dataclass

from hybrid_sweep.trainer.config import HybridConfig
from hybrid_sweep.trainer.costs import CostMeter
from hybrid_sweep.trainer.divergence_log import DivergenceLog
from hybrid_sweep.trainer.phases import PhaseController
from hybrid_sweep.trainer.plain import PlainStep
from hybrid_sweep.trainer.planner import JumpPlanner
from hybrid_sweep.trainer.records import Position, Tally


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The parts of one run.

    Attributes:
        config: phases, gates and thresholds.
        plain: the real step, with model, optimizer and schedule.
        controller: which phase comes.
        planner: what a jump is made of.
        tally: the books of the run.
        position: where the run stands.
        meter: what each kind of work costs.
        log: one row a logical step; None where none is kept.
    """

    config: HybridConfig
    plain: PlainStep
    controller: PhaseController
    planner: JumpPlanner
    tally: Tally
    position: Position
    meter: CostMeter
    log: DivergenceLog | None
