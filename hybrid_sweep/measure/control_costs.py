"""What a step of a control costs, beside one of the recipe: AdamW's is not SGD's. Both load their batch."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial

from pydantic import TypeAdapter

from hybrid_sweep.control import REPLAYED, ControlConfig
from hybrid_sweep.measure.control_optimizers import NotApplicable
from hybrid_sweep.measure.control_training import ControlTraining
from hybrid_sweep.measure.costs import seconds_allowed
from hybrid_sweep.measure.reference import OnProgress, ignore_progress
from hybrid_sweep.measure.run_cache import RunCache
from hybrid_sweep.workload import Workload

BLOCKS = 30
"""Of steps, the recipe's and the control's by turns."""
BLOCK_STEPS = 10
PARTS = 4
"""Of the run, since an averaged tail costs in the last quarter alone."""
FREE = ("reference", "truncated", *REPLAYED)
"""Arms without a step of their own: the recipe's runs, and those that no sweep trains."""
RATIO = TypeAdapter(float)


def cost_class(arm: ControlConfig) -> str:
    """Return what controls whose steps cost the same have in common."""
    return f"{arm.name} {arm.optimizer}" if arm.name in ("tuned", "schedule_free") else arm.name


def step_ratios(
    workload: Workload,
    seed: int,
    arms: Iterable[ControlConfig],
    steps: int,
    runs: RunCache,
    *,
    fresh: bool,
    a_step: float = 0.0,
    on_progress: OnProgress = ignore_progress,
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
        a_step: seconds of a plain step; the longer it is, the fewer are timed.
        on_progress: told how many are done, and of how many.
    """
    ratios: dict[str, float] = {}
    classes = {cost_class(arm): arm for arm in arms if arm.name not in FREE}
    most = BLOCKS * BLOCK_STEPS
    if a_step and classes:
        most = min(most, int(seconds_allowed(steps, a_step) / (2 * len(classes) * a_step)))
    for number, (name, arm) in enumerate(classes.items()):
        on_progress(number, len(classes))
        measure = partial(measure_step_ratio, workload, seed, arm, steps, max(most, 2 * PARTS))
        parts = {"machine": [platform.node(), os.cpu_count()], "arm": name}
        with suppress(NotApplicable):
            ratios[name] = runs.kept("step_ratios", RATIO, measure, fresh=fresh, **parts)
    return ratios


def measure_step_ratio(
    workload: Workload, seed: int, arm: ControlConfig, steps: int, most: int = BLOCKS * BLOCK_STEPS
) -> float:
    """Return the seconds of a control's step over those of a plain step of the recipe, batches and all.

    Recipe and control train by turns, and of each part of the run the quickest step counts: on a busy machine
    it is the one that nothing else delayed.

    Raises:
        NotApplicable: the control is none of this workload's.
    """
    total = min(most, steps)
    runs = [
        ControlTraining(workload, seed, each, steps=total, eval_every=BLOCK_STEPS, recipe_steps=steps)
        for each in (ControlConfig(name="reference"), arm)
    ]
    while not any(run.done for run in runs):
        for run in runs:
            run.advance()
    plain, own = (_quickest(run.meter.plain_steps()) for run in runs)
    return own / plain if plain else 1.0


def _quickest(seconds: Sequence[float]) -> float:
    """Return the quickest of each part of a run's steps, added up."""
    count = len(seconds)
    parts = [seconds[i * count // PARTS : (i + 1) * count // PARTS] for i in range(PARTS)]
    return sum(min(part) for part in parts if part)
