"""HybridTrainer: puts the rooms of this package in order; the mathematics is theirs."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hybrid_sweep.errors import UserError
from hybrid_sweep.trainer.auto_tune import loss_quality, lowest_passing
from hybrid_sweep.trainer.config import HybridConfig
from hybrid_sweep.trainer.continuing import changes, controller_under, starts_afresh
from hybrid_sweep.trainer.cost_meter import CostMeter
from hybrid_sweep.trainer.divergence.log import DivergenceLog
from hybrid_sweep.trainer.forecast.confidence import SHUT
from hybrid_sweep.trainer.phases import DecisionPoint, Phase, PhaseController, TrainingState
from hybrid_sweep.trainer.planner import JumpPlanner
from hybrid_sweep.trainer.records import StepResult, TrainingDiverged, TrainingStatistics
from hybrid_sweep.trainer.recovery import Parts
from hybrid_sweep.trainer.snapshot import Snapshot, plain
from hybrid_sweep.trainer.state import Position, Segment, Tally
from hybrid_sweep.trainer.stepper import Stepper
from hybrid_sweep.trainer.train_step import (
    Backward,
    Batches,
    LossFunction,
    StepGenerator,
    TrainStep,
    as_loader,
    run_to_completion,
)

logger = logging.getLogger(__name__)


class HybridTrainer:
    """Trains a model in cycles of Full, Predict and Correct after a Warmup, in logical steps.

    In Predict the weights are advanced in place by a predicted displacement: no forward, no backward, no
    batch. Across a jump the optimizer's state stays as it is (momentum and Adam's moments and counts are
    those of real steps), the learning-rate schedule advances by the predicted steps, and a jump is scaled by
    the schedule's change. BatchNorm buffers are moved by forward passes alone: probes and Correct run in the
    model's own mode and so re-estimate them.

    Args:
        model: any module; trainable parameters are moved in place.
        optimizer: any torch optimizer over them, a list of several, or an object with `param_groups`,
            `zero_grad`, `step` (with a closure or without), `state_dict` and `load_state_dict`.
        config: phases, gates and thresholds.
        loss_fn: `loss_fn(model, batch) -> scalar tensor`.
        lr_scheduler: stepped once a logical step: torch's, a list of several, or an object with `step()`, of
            which the attributes that are data are put back at a rollback where it has no `state_dict`.
        max_grad_norm: total gradient norm is clipped to this, above 0.
        backward: computes the gradients of a loss, such as `accelerator.backward` of Accelerate.
        divergence_log: a CSV file with one row a logical step; reading predicted losses costs roll-outs.
        meter: what measures each kind of work; None takes a stopwatch.

    Raises:
        UserError: for an optimizer or a schedule that cannot be used (`TrainStep`), a model without trainable
            parameters or with ones that cannot lie in one vector, an optimizer that has others than the
            model's, a norm that is not positive, or a predictor that cannot work with the optimizer.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Any,
        config: HybridConfig | None = None,
        *,
        loss_fn: LossFunction,
        lr_scheduler: Any = None,
        max_grad_norm: float | None = None,
        backward: Backward = torch.autograd.backward,
        divergence_log: str | Path | None = None,
        meter: CostMeter | None = None,
    ) -> None:
        self.plain = TrainStep(model, optimizer, loss_fn, lr_scheduler, max_grad_norm, backward)
        self.model = model
        self.optimizer = self.plain.optimizer
        self.config = config or HybridConfig()
        self.controller = PhaseController(self.config)
        self.planner = JumpPlanner(self.plain, self.config)
        self.tally = Tally()
        self.position = Position()
        self.meter = meter or CostMeter(self.plain.parameters[0].device)
        self._log = DivergenceLog(divergence_log) if divergence_log else None
        parts = Parts(
            config=self.config,
            plain=self.plain,
            controller=self.controller,
            planner=self.planner,
            tally=self.tally,
            position=self.position,
            meter=self.meter,
            log=self._log,
        )
        self._stepper = Stepper(parts)
        self.recovery = self._stepper.recovery
        self.monitor = self.recovery.monitor

    # Driving

    def step(self, batch: Any) -> StepResult:
        """Run one logical step; in Predict only a probe looks at `batch`.

        The batch was loaded before the call, so no speedup that `meter` gives knows what that took: `run`
        loads batches within its clock. Each call is one logical step, in Predict too, so a schedule that the
        caller steps once a call keeps count; a jump is scaled by the rate that it finds in the optimizer.

        Raises:
            TrainingDiverged: when `max_rollbacks` is exceeded.
        """
        self._look_at_parameters()
        return self._stepper.advance(lambda _: batch, limit=1)

    def run(self, batches: Batches, total_steps: int) -> TrainingStatistics:
        """Train until logical step `total_steps`, without loading the batches of predicted steps.

        The end is that of this call: `step` goes on after it without one, and another `run` until its own. A
        schedule must be given as `lr_scheduler`, for several logical steps pass at once in Predict.

        Args:
            batches: `batches(step)` with step from 1; or a sequence, wrapped around; or an iterable, which
                cannot skip: it is drawn from only when a batch is used, and restarted when it ends.
            total_steps: N, counted from the first step of all; no jump reaches into the last `stop_fraction`
                of it.

        Raises:
            UserError: more steps are done already.
            TrainingDiverged: when `max_rollbacks` is exceeded.
        """
        load = as_loader(batches)
        while self.run_cycle(load, total_steps):
            pass
        return self.training_statistics()

    def run_cycle(self, load: Callable[[int], Any], total_steps: int) -> bool:
        """Train to the end of the current cycle; return whether steps are left.

        A cycle ends with its Correct phase, or after 100 logical steps in which nothing was predicted.
        """
        return run_to_completion(self.cycle(load, total_steps))

    def cycle(self, load: Callable[[int], Any], total_steps: int) -> StepGenerator[bool]:
        """As `run_cycle`, but leave the real steps to the caller, so that many can be taken at once."""
        if total_steps < self.tally.steps:
            raise UserError(
                f"total_steps={total_steps} is not allowed after {self.tally.steps} steps: it counts from "
                f"the first step of all, so k more are total_steps={self.tally.steps} + k"
            )
        self._look_at_parameters()
        self.controller.total_steps = total_steps
        try:
            yield from self._until(load, total_steps)
        finally:
            self.controller.total_steps = None
        return self.tally.steps < total_steps

    def _until(self, load: Callable[[int], Any], total_steps: int) -> StepGenerator[None]:
        began = self.tally.steps if self.position.cycle_at is None else self.position.cycle_at
        self.position.cycle_at = began
        while self.tally.steps < total_steps:
            yield from self._stepper.iter_advance(load, limit=total_steps - self.tally.steps)
            if self._stepper.cycle_is_over(began):
                break
        self.position.cycle_at = None
        self.recovery.settle()
        if self.tally.steps == total_steps:
            self.planner.finish()

    def _look_at_parameters(self) -> None:
        """Follow a model that was converted or moved; one unfrozen is found where its phase ends."""
        if not self.planner.groups.in_place():
            self.recovery.follow_parameters()

    def at_decisions(self, call: Callable[[], None] | None) -> None:
        """Have `call` called wherever the next phase is about to be decided; what it takes is not charged.

        There `state_dict` may be taken, and `crossing` tells what would come for which settings.
        """
        self._stepper.on_decision = call

    def crossing(self) -> DecisionPoint:
        """Return what the next phase depends on, where it is about to be decided."""
        return self._stepper.crossing()

    def force_phase(self, phase: Phase, steps: int) -> None:
        """Run `phase` for the next `steps` logical steps, whatever the confidence; then normal control.

        Raises:
            UserError: when `steps` is not positive.
        """
        if steps < 1:
            raise UserError(f"steps={steps} is not allowed: a forced phase needs at least 1")
        self.recovery.settle()
        self.recovery.force_phase(phase, steps)

    def take_checkpoint(self) -> None:
        """Remember everything that `rollback_to_checkpoint` restores."""
        self.recovery.settle()
        self.recovery.take_checkpoint()

    def rollback_to_checkpoint(self) -> None:
        """Restore model, optimizer, random numbers, predictor and controller.

        The count of logical steps goes on, and the learning-rate schedule with it: a step that was taken is
        taken.
        """
        self.recovery.rollback()

    # Trying out

    def auto_tune_confidence(
        self,
        batches: Batches,
        evaluate: Callable[[nn.Module], float],
        *,
        target_quality: float = 0.98,
        steps: int = 100,
    ) -> float | None:
        """Return the lowest `confidence_threshold` that keeps quality over the next `steps` steps.

        From 0.85 down in steps of 0.05 (original, Adaptive Threshold Tuning) each threshold trains `steps`
        logical steps from here, and so does plain training; quality is the ratio of their held-out losses.
        A schedule that ends meanwhile stands still. Afterwards everything is as it was, the trainer's own
        threshold too: start a run with the one found.

        Args:
            batches: as for `run`; an iterable that cannot be restarted is used up.
            evaluate: the held-out loss of a model, positive.
            target_quality: at least this passes.
            steps: logical steps of each attempt; two cycles or more show what jumps do.

        Returns:
            The last threshold that passed; None where 0.85 does not.

        Raises:
            UserError: Warmup is not over, so that nothing would be predicted; or a loss that is not positive.
        """
        if self.controller.phase is Phase.WARMUP and self.controller.remaining:
            raise UserError("auto_tune_confidence needs a trainer after its Warmup: run warmup_steps first")
        load = as_loader(batches)

        def loss_at(threshold: float) -> float:
            with self._rehearsal(threshold):
                try:
                    self.run(load, self.tally.steps + steps)
                except TrainingDiverged:
                    return math.inf
                return evaluate(self.model)

        plain_loss = loss_at(SHUT)
        return lowest_passing(lambda threshold: loss_quality(plain_loss, loss_at(threshold)), target_quality)

    @contextmanager
    def _rehearsal(self, threshold: float) -> Iterator[None]:
        """Let training go on by another threshold within, unlogged; put everything back on leaving."""
        state, scheduled = self.state_dict(), self.plain.schedule_steps
        self.plain.rehearses = True
        self.controller.config = self.config.replace(confidence_threshold=threshold, stop_fraction=0.0)
        try:
            with self._log.paused() if self._log else nullcontext():
                yield
        finally:
            self.controller.config = self.config
            self.load_state_dict(state)
            self.plain.schedule_steps, self.plain.rehearses = scheduled, False

    # Saving

    def state_dict(self) -> dict[str, Any]:
        """Return everything that training depends on: a run that takes it up goes on as this one does.

        It holds plain containers, numbers, strings and tensors (as far as the states of model, optimizer and
        scheduler do), so that `torch.load(..., weights_only=True)` reads it; no tensor is shared. Batches are
        not in it: they must depend on the logical step alone, or be put back by the caller.
        """
        self.recovery.read()
        state = {
            "config": self.config.model_dump(),
            "parts": Snapshot(*self.recovery.stateful()).state_dict(),
            "recovery": self.recovery.state_dict(),
            "position": asdict(self.position),
            "tally": self.tally.state_dict(),
            "meter": self.meter.state_dict(),
        }
        result: dict[str, Any] = plain(state)
        return result

    def load_state_dict(
        self, state: dict[str, Any], *, may_differ: Collection[str] = (), under_new_config: bool = False
    ) -> None:
        """Go on from what `state_dict` returned, the global random numbers included.

        Model, optimizer and scheduler are built as they were for the saved run. The state becomes this
        trainer's own: it is not to be changed afterwards.

        Under another configuration, which `under_new_config` allows, weights, optimizer, schedule, step and
        all that was learned go on with the settings of this trainer. What these have no place for starts
        afresh, which the log says: a predictor of another kind or size, the monitor of another rule.

        Args:
            state: of a run with the same configuration, unless it may differ.
            may_differ: settings in which it may be another one, since they have not mattered yet.
            under_new_config: whether any setting may differ; with the same ones that changes nothing.

        Raises:
            UserError: the saved run had another configuration that it may not have, or was saved within a
                jump that only its own can end.
        """
        changed = {k: v for k, v in changes(state["config"], self.config).items() if k not in may_differ}
        for name, (theirs, ours) in changed.items():
            if not under_new_config:
                raise UserError(
                    f"the saved run has {name}={theirs!r}, this one {ours!r}: go on with the configuration "
                    "that it began with, start from step 0, or load it with under_new_config=True"
                )
        parts = Snapshot.from_state(state["parts"])
        if changed:
            parts.ours = self._under_this_config(parts.ours, state["config"], changed)
        parts.restore(*self.recovery.stateful())
        self.recovery.load_state_dict(state["recovery"])
        if changed:
            self.recovery.take_checkpoint()
        for name, value in state["position"].items():
            setattr(self.position, name, value)
        self.tally.load_state_dict(state["tally"])
        self.meter.load_state_dict(state["meter"])
        self.plain.steps, self.plain.backward_calls = self.tally.real_steps, self.tally.backward_calls

    def _under_this_config(
        self, ours: dict[str, Any], before: dict[str, Any], changed: dict[str, tuple[Any, Any]]
    ) -> dict[str, Any]:
        """Return the saved state of our parts as far as these settings have a place for it."""
        planner = dict(ours["planner"])
        result = {
            **ours,
            "controller": controller_under(ours["controller"], before, self.config),
            "planner": planner,
        }
        for part, names in starts_afresh(changed, self.config).items():
            if part == "predictor":
                self.planner.start_predictor()
                planner |= {"predictor": self.planner.predictor.state_dict(), "plan": None}
            elif part == "dynamics":
                self.planner.start_dynamics()
                fresh = {name: getattr(self.planner, name).state_dict() for name in ("dynamics", "mixture")}
                planner |= {**fresh, "rolled": [], "loss_correction": None}
            else:
                result[part] = self.recovery.new_monitor().state_dict()
            logger.warning("%s: the %s starts afresh", ", ".join(f"new {name}" for name in names), part)
        return result

    # Telling

    def state(self) -> TrainingState:
        """Return where the run stands."""
        self.recovery.read()
        return TrainingState(
            step=self.tally.steps,
            phase=self.controller.phase,
            steps_in_current_phase=self.controller.steps_in_current_phase,
            loss=self.position.loss,
            confidence=self.position.confidence,
        )

    def training_statistics(
        self, *, reference_loss: float | None = None, held_out_loss: float | None = None
    ) -> TrainingStatistics:
        """Return the statistics so far; `quality_score` needs both held-out losses of the same step."""
        self.recovery.catch_up()
        return TrainingStatistics.from_tally(
            self.tally,
            self.trace(),
            self.planner.confidence,
            self.planner.forecast_skill,
            reference_loss,
            held_out_loss,
        )

    def trace(self) -> list[Segment]:
        """Return every phase so far, the current one included."""
        return self.tally.trace + self.tally.segment(self.controller.phase)
