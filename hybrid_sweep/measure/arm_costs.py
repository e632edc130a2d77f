"""What a step of a control costs, beside one of the recipe: AdamW's is not SGD's."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median

from hybrid_sweep.arm import REPLAYED, Arm
from hybrid_sweep.measure.arms import ArmRun
from hybrid_sweep.measure.recipe import NotApplicable
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


def step_ratios(workload: Workload, seed: int, arms: Iterable[Arm], steps: int) -> dict[str, float]:
    """Return the seconds of a step over those of a plain step of the recipe, by `cost_class`.

    Recipe and control train by turns, so that a busy moment touches both; the median over the blocks is
    taken. A control that does not apply, or is the recipe, has none.

    Args:
        workload: what to train.
        seed: of model and data order.
        arms: controls; one of each class is timed.
        steps: N, beyond which the workload need not have a batch.
    """
    total = min(BLOCKS * BLOCK_STEPS, steps)
    ratios: dict[str, float] = {}
    for name, arm in {cost_class(arm): arm for arm in arms if arm.name not in FREE}.items():
        try:
            runs = [
                ArmRun(workload, seed, each, steps=total, eval_every=BLOCK_STEPS)
                for each in (Arm(name="reference"), arm)
            ]
        except NotApplicable:
            continue
        blocks = []
        while not any(run.done for run in runs):
            before = [run.meter.seconds()[Work.PLAIN] for run in runs]
            for run in runs:
                run.advance()
            plain, own = (run.meter.seconds()[Work.PLAIN] - b for run, b in zip(runs, before, strict=True))
            blocks.append(own / plain if plain else 1.0)
        ratios[name] = median(blocks[1:] or blocks)
    return ratios
