"""What a step of a control costs, beside one of the recipe: AdamW's is not SGD's."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from statistics import median

from hybrid_sweep.arm import REPLAYED, Arm
from hybrid_sweep.measure.arms import ArmRun
from hybrid_sweep.measure.recipe import NotApplicable
from hybrid_sweep.measure.run_cache import RunCache
from hybrid_sweep.trainer.costs import Work
from hybrid_sweep.workload import Workload

BLOCKS = 11
"""Of steps, the recipe's and the control's by turns; the first is not counted."""
BLOCK_STEPS = 20
FREE = ("reference", "truncated", *REPLAYED)
"""Arms without a step of their own: the recipe's runs, and those that no sweep trains."""


def cost_class(arm: Arm) -> str:
    """Return what controls whose steps cost the same have in common."""
    return f"{arm.name} {arm.optimizer}" if arm.name in ("tuned", "schedule_free") else arm.name


def step_ratios(
    workload: Workload, seed: int, arms: Iterable[Arm], steps: int, runs: RunCache, *, fresh: bool
) -> dict[str, float]:
    """Return what `measure_step_ratio` does of each `cost_class`: measured once, then read from the cache.

    A control that does not apply, or is the recipe, has none.

    Args:
        workload: what to train.
        seed: of model and data order.
        arms: controls; one of each class is timed.
        steps: N, beyond which the workload need not have a batch.
        runs: the workload's own.
        fresh: measure now, whatever the cache holds, and keep that.
    """
    ratios: dict[str, float] = {}
    for name, arm in {cost_class(arm): arm for arm in arms if arm.name not in FREE}.items():
        parts = {"machine": [platform.node(), os.cpu_count()], "arm": name}
        kept = None if fresh else runs.get("step_ratios", **parts)
        try:
            ratios[name] = kept or measure_step_ratio(workload, seed, arm, steps)
        except NotApplicable:
            continue
        if not kept:
            runs.put("step_ratios", ratios[name], **parts)
    return ratios


def measure_step_ratio(workload: Workload, seed: int, arm: Arm, steps: int) -> float:
    """Return the seconds of a control's step over those of a plain step of the recipe.

    Recipe and control train by turns, so that a busy moment touches both; the median over the blocks is
    taken.

    Raises:
        NotApplicable: the control is none of this workload's.
    """
    total = min(BLOCKS * BLOCK_STEPS, steps)
    runs = [
        ArmRun(workload, seed, each, steps=total, eval_every=BLOCK_STEPS)
        for each in (Arm(name="reference"), arm)
    ]
    blocks = []
    while not any(run.done for run in runs):
        before = [run.meter.seconds()[Work.PLAIN] for run in runs]
        for run in runs:
            run.advance()
        plain, own = (run.meter.seconds()[Work.PLAIN] - b for run, b in zip(runs, before, strict=True))
        blocks.append(own / plain if plain else 1.0)
    return median(blocks[1:] or blocks)
