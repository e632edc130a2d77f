"""What a sweep prepares on its workers before the first run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

from pydantic import TypeAdapter

from hybrid_sweep.control import ControlConfig
from hybrid_sweep.measure.batch_size import BatchSize, packing
from hybrid_sweep.measure.control_costs import step_ratios
from hybrid_sweep.measure.cost_cache import unit_costs_of_all
from hybrid_sweep.measure.costs import UnitCosts
from hybrid_sweep.measure.curvature import Curvature, measure_curvature
from hybrid_sweep.measure.reference import OnProgress, Reference, ignore_progress, reference_run
from hybrid_sweep.measure.schedule import still_made_for
from hybrid_sweep.measure.workload_builder import WorkloadOrder, own_steps, uncompiled
from hybrid_sweep.trainer.config import HybridConfig
from hybrid_sweep.workload import quality_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A reference, and what is known with it.

    Attributes:
        reference: plain training with one seed.
        from_cache: whether an earlier sweep trained it.
        quality: how the workload compares with it.
        began_with: the workload, as `WorkloadOrder.began_with`.
        warning: what does not go as the sweep says, in a sentence; "" where nothing shows.
    """

    reference: Reference
    from_cache: bool
    quality: str
    began_with: dict[str, Any]
    warning: str = ""


def prepare_reference(
    order: WorkloadOrder,
    seed: int,
    steps: int | None,
    eval_every: int,
    share: bool,
    on_progress: OnProgress = ignore_progress,
) -> Prepared:
    """Run plain training with one seed, unless with `share` an earlier sweep has."""
    workload = order.build()
    runs = order.runs(workload) if share else None
    parts = {"seed": seed, "steps": steps or workload.steps, "eval_every": eval_every}
    about: dict[str, Any] = {
        "quality": quality_of(workload),
        "began_with": order.began_with(),
        "warning": still_made_for(workload, own_steps.get(repr(order), workload.steps), parts["steps"]),
    }
    if runs and (kept := runs.get("references", TypeAdapter(Reference), **parts)):
        return Prepared(reference=kept, from_cache=True, **about)
    reference = reference_run(workload, **parts, on_progress=on_progress)
    if runs:
        runs.put("references", reference, **parts)
    return Prepared(reference=reference, from_cache=False, **about)


def prepare_curvature(
    order: WorkloadOrder, seed: int, steps: int | None, share: bool, on_progress: OnProgress = ignore_progress
) -> Curvature:
    """Measure the largest η·λ along plain training with one seed, unless (`share`) an earlier sweep has.

    It trains uncompiled, for a compiled loss cannot be differentiated twice.
    """
    workload = uncompiled(order.build())
    runs = replace(order, compile="none").runs(workload) if share else None
    parts: dict[str, Any] = {"seed": seed, "steps": steps or workload.steps}
    measure = partial(measure_curvature, workload, **parts, on_progress=on_progress)
    return runs.kept("curvatures", TypeAdapter(Curvature), measure, **parts) if runs else measure()


def prepare_costs(
    order: WorkloadOrder,
    configs: Mapping[str, HybridConfig],
    steps: int | None,
    fresh: bool,
    on_progress: OnProgress = ignore_progress,
) -> dict[str, UnitCosts]:
    """Measure the unit costs of several settings, or take those that this machine has kept."""
    workload = order.build()
    runs, steps = order.runs(workload), steps or workload.steps
    return unit_costs_of_all(workload, configs, runs, steps, fresh=fresh, on_progress=on_progress)


def prepare_batch_size(
    order: WorkloadOrder, asked: int | Literal["auto"], most: int, share: float
) -> BatchSize:
    """Decide how many trials a worker trains at once."""
    return packing(order.build(), asked, most, share)


def prepare_step_ratios(
    order: WorkloadOrder,
    seed: int,
    arms: list[ControlConfig],
    steps: int,
    fresh: bool,
    a_step: float,
    on_progress: OnProgress = ignore_progress,
) -> dict[str, float]:
    """Time a step of each kind of control against the recipe's, or take what this machine has kept."""
    workload = order.build()
    return step_ratios(
        workload, seed, arms, steps, order.runs(workload), fresh=fresh, a_step=a_step, on_progress=on_progress
    )
