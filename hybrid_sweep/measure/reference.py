"""Reference: one plain training run per workload and seed, which every trial is scored against."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from math import ceil, isfinite
from typing import Any

import torch
from torch import nn

from hybrid_sweep.errors import UserError
from hybrid_sweep.measure.curve import first_at, gained, interpolate
from hybrid_sweep.measure.model import built_model, modes_kept
from hybrid_sweep.measure.schedule import build_schedule, validate_schedule_length
from hybrid_sweep.trainer.config import HybridConfig
from hybrid_sweep.trainer.cost_meter import CostMeter
from hybrid_sweep.trainer.optimizers import OptimizerLike, evaluated_weights
from hybrid_sweep.trainer.random_state import random_state, seed_random_state, set_random_state
from hybrid_sweep.trainer.train_step import TrainStep
from hybrid_sweep.trainer.trainer import HybridTrainer
from hybrid_sweep.workload import Workload, metric_of, quality_of

TARGET_STEPS_RATIO = 1.10
"""A hybrid run may take this many times the reference's steps to the target loss (original, checklist 2)."""


OnProgress = Callable[[int, int], object]
"""Told how much is done, and of how much."""


def ignore_progress(done: int, total: int) -> None:
    """Tell nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """Held-out results of plain training along a run.

    Attributes:
        seed: of model, data order and global random numbers.
        steps: logical steps at which it was evaluated, from 0 to N.
        val_loss: held-out loss at each of them.
        val_metric: the workload's metric at each of them, the accuracy where it names none; None without one.
        peak_memory_bytes: CUDA's peak allocation; None on a CPU.
        passes: backward passes of a step, on average: more than one of LBFGS or SAM.
    """

    seed: int
    steps: list[int]
    val_loss: list[float]
    val_metric: list[float] | None
    peak_memory_bytes: int | None = None
    passes: float = 1.0

    def loss_at(self, step: int) -> float:
        """Return the held-out loss at `step`, interpolated in log loss (linearly where it is not > 0)."""
        return interpolate(self.steps, self.val_loss, step, in_log=min(self.val_loss) > 0)

    def metric_at(self, step: int) -> float | None:
        """Return the workload's metric at `step`, interpolated."""
        return None if self.val_metric is None else interpolate(self.steps, self.val_metric, step)

    def gained(self, kind: str) -> float:
        """Return by how much the whole run improves what a quality of this `kind` is about."""
        return gained(kind, self.val_loss, self.val_metric)

    def target(self) -> tuple[float, float]:
        """Return the loss at the step whose 110 % is N, and the step at which plain training first has it."""
        step = ceil(self.steps[-1] / TARGET_STEPS_RATIO)
        loss = self.loss_at(step)
        return loss, min(first_at(self.val_loss, loss, self.steps), step)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


def reference_run(
    workload: Workload, seed: int, steps: int, eval_every: int, on_progress: OnProgress = ignore_progress
) -> Reference:
    """Train plainly for `steps` steps on the same batches as a hybrid run, evaluating as it goes.

    Args:
        workload: what to train.
        seed: of model, data order and global random numbers.
        steps: N, logical steps.
        eval_every: steps between evaluations on the validation split.
        on_progress: told at each step how many are done.

    Raises:
        UserError: a schedule that ends before the run; a held-out loss that is not finite, that ends above
            where it began, or that the workload's `quality` cannot be taken of.
    """
    validate_schedule_length(start(workload, seed, steps), steps)
    plain = start(workload, seed, steps)
    at = sorted({*range(0, steps, eval_every), steps})
    results: list[dict[str, float]] = []
    for step in range(steps + 1):
        on_progress(step, steps)
        if step:
            plain(workload.batch(seed, step))
        if step == at[len(results)]:
            results.append(held_out(workload, plain.model, optimizer=plain.optimizer))
            validate_scored(results[-1], workload, step)
    first, last, metric = results[0]["loss"], results[-1]["loss"], metric_of(workload)
    if last > first and quality_of(workload).startswith("loss"):
        raise UserError(
            f"plain training ends at a held-out loss of {last:.4g}, above the {first:.4g} where it began: "
            "lower the learning rate or the steps until it trains, there is nothing to compare with"
        )
    return Reference(
        seed=seed,
        steps=at,
        val_loss=[r["loss"] for r in results],
        val_metric=[r[metric] for r in results] if metric in results[0] else None,
        peak_memory_bytes=peak_memory_bytes(plain),
        passes=plain.passes,
    )


def peak_memory_bytes(plain: TrainStep) -> int | None:
    """Return the peak of CUDA's allocations where `plain` trains, since its `start`; None on a CPU."""
    weights = plain.parameters[0]
    return torch.cuda.max_memory_allocated(weights.device) if weights.is_cuda else None


def start(workload: Workload, seed: int, steps: int | None = None) -> TrainStep:
    """Build model, optimizer and schedule, and seed the global random numbers: one start for all arms.

    Args:
        workload: what to train.
        seed: of model and global random numbers.
        steps: N, for which the schedule is made and beyond which it stands still; None takes the workload's.
    """
    total = steps or workload.steps
    model = built_model(workload, seed)
    optimizer = workload.build_optimizer(model)
    seed_random_state(seed)
    scheduler = build_schedule(workload, optimizer, total)
    limit = getattr(workload, "max_grad_norm", None)
    plain = TrainStep(model, optimizer, workload.loss, scheduler, limit)
    plain.schedule_steps = total
    if plain.parameters[0].is_cuda:
        torch.cuda.reset_peak_memory_stats(plain.parameters[0].device)
    return plain


def hybrid_of(plain: TrainStep, config: HybridConfig, meter: CostMeter | None = None) -> HybridTrainer:
    """Return the hybrid trainer of what `start` has built."""
    trainer = HybridTrainer(
        plain.model,
        plain.optimizer,
        config,
        loss_fn=plain.loss_fn,
        lr_scheduler=plain.scheduler,
        max_grad_norm=plain.max_grad_norm,
        meter=meter,
    )
    trainer.plain.schedule_steps = plain.schedule_steps
    return trainer


def held_out(
    workload: Workload, model: nn.Module, split: str = "val", optimizer: OptimizerLike | None = None
) -> dict[str, float]:
    """Evaluate on `split`; training goes on as if it had not: same mode, same random numbers.

    With an `optimizer` that has weights of its own for it (`evaluated_weights`), those are evaluated.
    Arms are evaluated at different steps, so a trace of it in one of them would make the comparison unfair.

    Raises:
        UserError: the workload gives no loss, or something that is no number.
    """
    before = random_state()
    with modes_kept(model), evaluated_weights(optimizer, model):
        result: Any = workload.evaluate(model, split)
    if not isinstance(result, Mapping) or "loss" not in result:
        raise UserError("the workload's evaluate() returns no 'loss': return {'loss': mean held-out loss}")
    set_random_state(before)
    return {str(name): _number(name, value) for name, value in result.items()}


def _number(name: str, value: Any) -> float:
    try:
        return float(value)  # of a tensor, too
    except (TypeError, ValueError, RuntimeError):
        what = " ".join(repr(value).split())[:80]
        raise UserError(
            f"the workload's evaluate() returns {name}={what}: return a number for each name"
        ) from None


def no_ratio_of(value: float, name: str = "loss") -> str:
    """Return the sentence that refuses a held-out result of which a ratio has no value."""
    return (
        f"held-out {name} {value:.4g} is not above 0, so no ratio can be taken of it: "
        'set the workload\'s quality = "loss_gap" or "accuracy_ratio"'
    )


def validate_scored(result: dict[str, float], workload: Workload, step: int) -> None:
    """Refuse a held-out result that no run can be compared with.

    Raises:
        UserError: a loss that is not finite, or results that the workload's quality cannot be taken of.
    """
    loss, quality, metric = result["loss"], quality_of(workload), metric_of(workload)
    if not isfinite(loss):
        raise UserError(
            f"plain training has a held-out loss of {loss} at step {step}: "
            "lower the learning rate until it trains, there is nothing to compare with"
        )
    if quality == "loss_ratio" and loss <= 0:
        raise UserError(f"{no_ratio_of(loss)} (at step {step} of plain training)")
    if quality.startswith("loss"):
        return
    if metric not in result:
        needs = f"metric = {metric!r}" if metric != "accuracy" else f'quality = "{quality}"'
        raise UserError(
            f'{needs} needs evaluate() to return "{metric}": it returns {", ".join(sorted(result))}; '
            "return it, or name one of those as metric"
        )
    value = result[metric]
    allowed = value > 0 if quality == "min_ratio" else value >= 0 or quality.endswith("gap")
    if not (isfinite(value) and allowed):
        raise UserError(
            f"plain training has {metric}={value:.4g} at step {step}, of which no ratio can be taken: "
            'set the workload\'s quality = "loss_gap", which compares by the gap'
        )
