"""Control arms A0 to A8: what the same budget reaches without prediction, and the hybrid beside them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf, isfinite
from typing import Any

from schedulefree import AdamWScheduleFree, SGDScheduleFree

from hybrid_sweep.control import REPLAYED, ControlConfig
from hybrid_sweep.errors import UserError, named
from hybrid_sweep.measure.control_optimizers import (
    NotApplicable,
    add_momentum,
    estimate_norms,
    schedule_free,
    tuned,
)
from hybrid_sweep.measure.curve import Curve
from hybrid_sweep.measure.reference import held_out, hybrid_of, start
from hybrid_sweep.trainer.config import HybridConfig
from hybrid_sweep.trainer.cost_meter import CostMeter, Work
from hybrid_sweep.trainer.forecast.corrector import micro_correction_due
from hybrid_sweep.trainer.optimizers import evaluated_weights, with_modes
from hybrid_sweep.trainer.phases import Phase, tail_begin
from hybrid_sweep.trainer.random_state import random_state, set_random_state
from hybrid_sweep.trainer.records import TrainingDiverged
from hybrid_sweep.trainer.state import Segment
from hybrid_sweep.trainer.train_step import PendingStep, StepGenerator, TrainStep, run_to_completion
from hybrid_sweep.trainer.weight_average import WeightAverage
from hybrid_sweep.workload import Workload, metric_of

AVERAGED_SHARE = 0.25
"""Of the steps of `average`, the last ones."""
RECIPE = ("reference", "truncated", "average", "frozen")
"""Arms that train with the recipe as it is."""
NORM_BATCHES = 20
"""Newest batches on which BatchNorm's buffers of averaged weights are estimated again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HybridCurve(Curve):
    """Held-out results of one hybrid run, evaluated at the end of each cycle.

    Attributes:
        trace: its phases, which `lr_matched` and `frozen` repeat.
        forward_only_calls: forward passes without backward, in the whole run.
    """

    trace: list[Segment]
    forward_only_calls: int


def run_hybrid(
    workload: Workload, seed: int, config: HybridConfig, steps: int, *, test: bool = False
) -> HybridCurve:
    """Train with prediction for `steps` logical steps, evaluating at the end of each cycle.

    Args:
        workload: what to train.
        seed: of model, data order and global random numbers.
        config: the hybrid trainer's.
        steps: N, logical steps.
        test: whether the test split is evaluated too, once, at the end.
    """
    plain = start(workload, seed, steps)
    trainer = hybrid_of(plain, config)
    log = _Log(workload, trainer.plain, trainer.meter)
    log.add(0, held_out(workload, plain.model, optimizer=plain.optimizer))
    more, diverged = True, False
    while more:
        try:
            more = trainer.run_cycle(lambda step: workload.batch(seed, step), steps)
            log.add(trainer.tally.steps, held_out(workload, plain.model, optimizer=plain.optimizer))
        except TrainingDiverged:  # its weights may look fine still
            more, diverged = False, True
            log.add(trainer.tally.steps, _lost(workload))
    tested: dict[str, float] = {}
    if test:
        tested = _lost(workload) if diverged else held_out(workload, plain.model, "test", plain.optimizer)
    return HybridCurve(
        **log.columns(),
        test=_infinite_where_not_finite(tested) if tested else {},
        trace=trainer.trace(),
        forward_only_calls=trainer.tally.forward_only_calls,
    )


class ControlTraining:
    """One control's training run, from the same start and on the same batches as the hybrid.

    Args:
        workload: what to train.
        seed: of model, data order and global random numbers.
        arm: which control.
        steps: real steps, on the first batches; `lr_matched` and `frozen` take those of the trace instead.
        trace: phases of the hybrid run that `lr_matched` and `frozen` repeat.
        eval_every: logical steps between evaluations; None evaluates at the end alone.
        meter: what measures its work; None takes a stopwatch.
        recipe_steps: N, for which the recipe's schedule is made; None takes the workload's, or more
            where it trains for longer.

    Attributes:
        plain: what trains.
        meter: seconds and calls of its work.
        steps: logical steps of the whole run.
        step: logical steps so far.
        done: whether the run is over; a held-out loss that is not finite ends it.

    Raises:
        NotApplicable: the arm does not apply to this recipe.
        UserError: it lacks its trace.
    """

    def __init__(
        self,
        workload: Workload,
        seed: int,
        arm: ControlConfig,
        *,
        steps: int,
        trace: Sequence[Segment] | None = None,
        eval_every: int | None = 25,
        meter: CostMeter | None = None,
        recipe_steps: int | None = None,
    ) -> None:
        if arm.name in REPLAYED and trace is None:
            raise UserError(f"arm {arm.name!r} repeats a hybrid run: give the trace of one")
        self._workload, self._seed, self._arm = workload, seed, arm
        replays = arm.name in REPLAYED
        self._work = _replayed(arm, trace or ()) if replays else [Work.PLAIN] * steps
        own = len(self._work) if replays else max(workload.steps, steps)
        self.plain = start(workload, seed, recipe_steps or own)
        self.meter = meter or CostMeter(self.plain.parameters[0].device)
        self.steps = len(self._work)
        self.step = 0
        self.done = False
        every = eval_every or self.steps
        self._evaluate_at = {*range(0 if eval_every else every, self.steps, every), self.steps}
        self._log = _Log(workload, self.plain, self.meter)
        share = arm.tail if arm.tail is not None else AVERAGED_SHARE if arm.name == "average" else 0.0
        self._tail = WeightAverage(list(self.plain.parameters))
        self._tail_begin = tail_begin(self.steps, share)
        self._free: SGDScheduleFree | AdamWScheduleFree | None = None
        try:
            self._prepare(trace or ())
        except UserError:
            raise
        except Exception as error:  # whatever another optimizer says of these parameters
            raise NotApplicable(
                f"arm {arm.name!r} cannot be built here ({named(error)}): leave it out"
            ) from error
        if 0 in self._evaluate_at:
            self._evaluate()

    def advance(self) -> None:
        """Train up to the next evaluation, and evaluate.

        Raises:
            NotApplicable: what the arm trains with fails at its first step, as the recipe does not.
        """
        try:
            run_to_completion(self.iter_advance())
        except UserError:
            raise
        except Exception as error:
            if self.step > 1 or self._arm.name in RECIPE:
                raise
            raise NotApplicable(
                f"arm {self._arm.name!r} cannot train this recipe ({named(error)}): leave it out here"
            ) from error

    def iter_advance(self) -> StepGenerator[None]:
        """As `advance`, but leave the real steps to the caller, so that many can be taken at once."""
        while True:
            yield from self._advance_one()
            if self.step in self._evaluate_at:
                break
        self._evaluate()

    def finish(self, *, test: bool = False) -> Curve:
        """Train to the end; with `test`, evaluate the test split then."""
        while not self.done:
            self.advance()
        return self.curve(test=test)

    def iter_finish(self) -> StepGenerator[None]:
        """Train to the end, but leave the real steps to the caller."""
        while not self.done:
            yield from self.iter_advance()

    def curve(self, *, test: bool = False) -> Curve:
        """Return what was measured so far; with `test`, evaluate the test split now."""
        if not test:
            return Curve(**self._log.columns())
        with self._published():
            result = held_out(self._workload, self.plain.model, "test")
        return Curve(**self._log.columns(), test=_infinite_where_not_finite(result))

    def _prepare(self, trace: Sequence[Segment]) -> None:
        """Change what the arm trains with."""
        arm, plain = self._arm, self.plain
        m = arm.multiplier or 1.0
        match arm.name:
            case "lr":
                plain.rate_factor = lambda: m
            case "lr_matched":
                first, last, own = jump_part(trace)
                on = arm.multiplier or own
                plain.rate_factor = lambda: on if first <= self.step <= last else 1.0
            case "momentum":
                add_momentum(plain.optimizer, 1 - 1 / m)
            case "tuned":
                optimizer, plain.scheduler = tuned(arm, plain.optimizer, self.steps)
                plain.use(optimizer)
            case "schedule_free":
                self._free = schedule_free(arm, plain.optimizer, self.steps)
                plain.use(self._free)
                plain.scheduler = None

    def _advance_one(self) -> StepGenerator[None]:
        work = self._work[self.step]
        self.step += 1
        if work is None:
            self.plain.skip(1)
            return
        self.meter.start()
        batch = self._workload.batch(self._seed, self.step)
        self.meter.lap(Work.BATCH)
        if work is Work.FORWARD:
            self.plain.look(batch)
            self.plain.skip(1)
        else:
            yield PendingStep(self.plain, batch)
            if n := self._arm.schedule_steps:
                ahead = self.step * n // self.steps - (self.step - 1) * n // self.steps
                if ahead > 1:
                    self.plain.skip(ahead - 1)
            if self.step > self._tail_begin:
                self._tail.observe()
        self.meter.lap(work)

    def _evaluate(self) -> None:
        with self._published():
            self._log.add(self.step, held_out(self._workload, self.plain.model))
        self.done = self.step == self.steps or not isfinite(self._log.val_loss[-1])

    @contextmanager
    def _published(self) -> Iterator[None]:
        """Put the weights in place that the arm would hand out; training goes on as if it had not.

        BatchNorm's buffers belong to the weights that moved them, so they are estimated again, outside the
        clock, by forward passes over the newest batches.
        """
        model = self.plain.model
        average = self._tail.state_dict()
        if not (self._free or average["mean"]):
            with evaluated_weights(self.plain.optimizer, model):
                yield
            return
        kept = {name: value.clone() for name, value in model.state_dict().items()}
        before = random_state()
        modes = with_modes(self.plain.optimizer)
        for optimizer in modes:
            optimizer.eval()
        self._tail.finish()
        if self._arm.name not in REPLAYED:  # those hand out what their hybrid would
            newest = range(max(self.step - NORM_BATCHES, 0) + 1, self.step + 1)
            estimate_norms(model, (self._workload.batch(self._seed, s) for s in newest), self.plain.look)
        yield
        for optimizer in modes:
            optimizer.train()
        model.load_state_dict(kept)  # to the last bit, which train() after eval() is not
        self._tail.load_state_dict(average)
        set_random_state(before)


def jump_part(trace: Sequence[Segment]) -> tuple[int, int, float]:
    """Return first and last logical step of the part of a run where jumps are on, and its m.

    It begins with the real phase before the first jump and ends with the last phase that is not real, or
    has no step where nothing was predicted. m is its logical steps / its real steps.
    """
    jumps = [i for i, segment in enumerate(trace) if segment.phase == Phase.PREDICT]
    if not jumps:
        return 1, 0, 1.0
    first = max(jumps[0] - 1, 0)
    last = max(i for i, segment in enumerate(trace) if not Phase(segment.phase).is_real)
    before, inside = trace[:first], trace[first : last + 1]
    logical = sum(segment.length for segment in inside)
    real = sum(segment.length for segment in inside if Phase(segment.phase).is_real)
    begin = sum(segment.length for segment in before)
    return begin + 1, begin + logical, logical / max(real, 1)


def _replayed(arm: ControlConfig, trace: Sequence[Segment]) -> list[Work | None]:
    """Return what a repeated run does at each logical step.

    `frozen` repeats the forward passes of Correct and of probes too, for they move BatchNorm's buffers and
    draw dropout's random numbers. Where the arm takes another number of real steps than the hybrid, predicted
    ones become real, or real ones are left out, evenly over the run.
    """
    work: list[Work | None] = []
    for segment in trace:
        for into in range(1, segment.length + 1):
            looks = segment.phase == Phase.CORRECT or micro_correction_due(into, segment.interval)
            if Phase(segment.phase).is_real:
                work.append(Work.PLAIN)
            else:
                work.append(Work.FORWARD if arm.name == "frozen" and looks else None)
    more = (arm.real_steps or work.count(Work.PLAIN)) - work.count(Work.PLAIN)
    changeable = [at for at, kind in enumerate(work) if (kind is Work.PLAIN) == (more < 0)]
    count = min(abs(more), len(changeable))
    for i in range(count):
        work[changeable[i * len(changeable) // count]] = Work.PLAIN if more > 0 else None
    return work


def _lost(workload: Workload) -> dict[str, float]:
    """Return the held-out results of a run that has diverged."""
    return {"loss": inf, metric_of(workload): 0.0}


class _Log:
    """Takes down what a curve is made of."""

    def __init__(self, workload: Workload, plain: TrainStep, meter: CostMeter) -> None:
        self._metric, self._plain, self._meter = metric_of(workload), plain, meter
        self.steps: list[int] = []
        self.backward_calls: list[int] = []
        self.seconds: list[float] = []
        self.val_loss: list[float] = []
        self.val_metric: list[float] = []

    def add(self, step: int, result: dict[str, float]) -> None:
        self.steps.append(step)
        self.backward_calls.append(self._plain.backward_calls)
        self.seconds.append(sum(self._meter.seconds().values()))
        self.val_loss.append(_infinite_where_not_finite(result)["loss"])
        if self._metric in result:
            self.val_metric.append(result[self._metric])

    def columns(self) -> dict[str, Any]:
        """Return keyword arguments of a `Curve`."""
        return {
            "steps": list(self.steps),
            "backward_calls": list(self.backward_calls),
            "seconds": list(self.seconds),
            "val_loss": list(self.val_loss),
            "passes": self._plain.passes,
            "val_metric": list(self.val_metric) if len(self.val_metric) == len(self.steps) else None,
        }


def _infinite_where_not_finite(result: dict[str, float]) -> dict[str, float]:
    return {**result, "loss": result["loss"] if isfinite(result["loss"]) else inf}
