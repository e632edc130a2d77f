"""The schedule of a workload's recipe: made for the steps of the run, or refused and warned of."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from inspect import signature
from typing import TYPE_CHECKING, Any

from hybrid_sweep.errors import UserError
from hybrid_sweep.measure.model import built_model
from hybrid_sweep.workload import Workload

if TYPE_CHECKING:
    from hybrid_sweep.trainer.train_step import TrainStep


OWN_COUNTS = ("last_epoch", "_step_count")
"""Where torch's schedules keep how far they are."""


def build_schedule(workload: Workload, optimizer: Any, steps: int) -> Any:
    """Return the workload's schedule, told the steps where it takes them; None where there is none."""
    build = getattr(workload, "build_scheduler", None)
    if build is None:
        return None
    if "steps" in signature(build).parameters:
        return build(optimizer, steps=steps)
    return build(optimizer, steps) if _needs_two(build) else build(optimizer)


def validate_schedule_length(plain: TrainStep, steps: int) -> None:
    """Drive the schedule through a run without training; `plain` is of no use afterwards.

    Raises:
        UserError: it ends before the run does.
    """
    if plain.scheduler is None:
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's, that no optimizer has stepped
            plain.skip(steps)
    except UserError as error:
        raise UserError(
            f"{error}, {steps} steps: take them from self.steps in build_scheduler, which a sweep sets, or "
            "define build_scheduler(self, optimizer, steps)"
        ) from error


def still_made_for(workload: Workload, before: int, steps: int) -> str:
    """Return in a sentence that a schedule holds the workload's own number of steps and not the sweep's.

    Args:
        workload: with the sweep's steps.
        before: steps of the workload itself.
        steps: of the sweep.

    Returns:
        The sentence; "" where nothing shows.
    """
    if before == steps or not hasattr(workload, "build_scheduler"):
        return ""
    optimizer = workload.build_optimizer(built_model(workload, 0))
    held = dict(_numbers(build_schedule(workload, optimizer, steps)))
    name = next((name for name, value in held.items() if value == before), "")
    if not name or steps in held.values():
        return ""
    return (
        f"steps={steps} does not reach the learning-rate schedule of {type(workload).__name__}, which is "
        f"made for {before} ({name}): take them from self.steps in build_scheduler, or define "
        "build_scheduler(self, optimizer, steps)"
    )


def _numbers(schedule: Any) -> Iterator[tuple[str, int]]:
    """Yield the whole numbers that a schedule is made with, and those of schedules in it, by name."""
    for name, value in getattr(schedule, "__dict__", {}).items():
        if isinstance(value, int) and not isinstance(value, bool) and name not in OWN_COUNTS:
            yield f"{type(schedule).__name__}.{name}", value
        elif isinstance(value, list | tuple):
            for part in value:
                if callable(getattr(part, "step", None)):
                    yield from _numbers(part)


def _needs_two(build: Callable[..., Any]) -> bool:
    needed = [
        p
        for p in signature(build).parameters.values()
        if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    return len(needed) == 2
