"""HybridTrainer: puts the rooms of this package in order; the mathematics is theirs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from hybrid_sweep.errors import UserError
from hybrid_sweep.trainer.config import HybridConfig
from hybrid_sweep.trainer.corrector import micro_correction_due
from hybrid_sweep.trainer.costs import CostMeter, Work
from hybrid_sweep.trainer.divergence import DivergenceSignal
from hybrid_sweep.trainer.divergence_log import DivergenceLog
from hybrid_sweep.trainer.phases import Phase, PhaseController, TrainingState
from hybrid_sweep.trainer.plain import Batches, LossFunction, PlainStep, as_loader
from hybrid_sweep.trainer.planner import JumpPlanner
from hybrid_sweep.trainer.predictors import Oracle
from hybrid_sweep.trainer.records import Position, Segment, StepResult, Tally, TrainingStatistics
from hybrid_sweep.trainer.recovery import Recovery
from hybrid_sweep.trainer.snapshot import Snapshot, plain

NORM_STRIDE = 10
"""Real steps from one measured gradient norm to the next: the same ones that the EMA of updates takes in."""
REPORT_STEPS = 100
"""Logical steps after which a cycle is over even though nothing was predicted."""


class HybridTrainer:
    """Trains a model in cycles of Full, Predict and Correct after a Warmup, in logical steps.

    In Predict the weights are advanced in place by a predicted displacement: no forward, no backward, no
    batch. Across a jump the optimizer's state stays as it is (momentum and Adam's moments and counts are
    those of real steps), the learning-rate schedule advances by the predicted steps, and a jump is scaled by
    the schedule's change. BatchNorm buffers are moved by forward passes alone: probes and Correct run in the
    model's own mode and so re-estimate them.

    Args:
        model: any module; trainable parameters are moved in place.
        optimizer: any torch optimizer over them.
        config: phases, gates and thresholds.
        loss_fn: `loss_fn(model, batch) -> scalar tensor`.
        lr_scheduler: stepped once a logical step.
        max_grad_norm: total gradient norm is clipped to this.
        divergence_log: a CSV file with one row a logical step; reading predicted losses costs roll-outs.

    Raises:
        UserError: for a scheduler that needs a metric, a model without trainable parameters, or a predictor
            that cannot work with the optimizer.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        config: HybridConfig | None = None,
        *,
        loss_fn: LossFunction,
        lr_scheduler: LRScheduler | None = None,
        max_grad_norm: float | None = None,
        divergence_log: str | Path | None = None,
    ) -> None:
        self.plain = PlainStep(model, optimizer, loss_fn, lr_scheduler, max_grad_norm)
        self.model = model
        self.optimizer = optimizer
        self.config = config or HybridConfig()
        self.controller = PhaseController(self.config)
        self.planner = JumpPlanner(self.plain, self.config)
        self.tally = Tally()
        self.position = Position()
        self.meter = CostMeter(self.plain.parameters[0].device)
        self._log = DivergenceLog(divergence_log) if divergence_log else None
        self.recovery = Recovery(
            self.config,
            self.plain,
            self.controller,
            self.planner,
            self.tally,
            self.position,
            force_phase=self.force_phase,
            log=self._log,
        )
        self.monitor = self.recovery.monitor
        self._cycle_at = 0

    # Driving

    def step(self, batch: Any) -> StepResult:
        """Run one logical step; in Predict only a probe looks at `batch`.

        Raises:
            TrainingDiverged: when `max_rollbacks` is exceeded.
        """
        return self._advance(lambda _: batch, limit=1)

    def run(self, batches: Batches, total_steps: int) -> TrainingStatistics:
        """Train until logical step `total_steps`, without loading the batches of predicted steps.

        Args:
            batches: `batches(step)` with step from 1; or a sequence, wrapped around; or an iterable, which
                cannot skip: it is drawn from only when a batch is used, and started anew when it ends.
            total_steps: N; no jump reaches into the last `stop_fraction` of it.

        Raises:
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
        self.controller.total_steps = total_steps
        self._cycle_at = self.tally.steps
        while self.tally.steps < total_steps:
            self._advance(load, limit=total_steps - self.tally.steps)
            if self._cycle_is_over():
                break
        if self.tally.steps == total_steps:
            self.planner.tail.finish()
        return self.tally.steps < total_steps

    def force_phase(self, phase: Phase, steps: int) -> None:
        """Run `phase` for the next `steps` logical steps, whatever the confidence; then normal control.

        Raises:
            UserError: when `steps` is not positive.
        """
        if steps < 1:
            raise UserError(f"steps={steps} is not allowed: a forced phase needs at least 1")
        self.recovery.leave_phase()
        self.controller.force_phase(phase, steps)
        self._prepare(phase)

    def take_checkpoint(self) -> None:
        """Remember everything that `rollback_to_checkpoint` restores."""
        self.recovery.take_checkpoint()

    def rollback_to_checkpoint(self) -> None:
        """Restore model, optimizer, random numbers, predictor and controller.

        The count of logical steps goes on, and the learning-rate schedule with it: a step that was taken is
        taken.
        """
        self.recovery.rollback()

    # Saving

    def state_dict(self) -> dict[str, Any]:
        """Return everything that training depends on: a run that takes it up goes on as this one does.

        It holds plain containers, numbers, strings and tensors (as far as the states of model, optimizer and
        scheduler do), so that `torch.load(..., weights_only=True)` reads it; no tensor is shared. Batches are
        not in it: they must depend on the logical step alone, or be put back by the caller.
        """
        state = {
            "config": self.config.model_dump(),
            "parts": Snapshot(*self.recovery.parts()).state_dict(),
            "recovery": self.recovery.state_dict(),
            "position": asdict(self.position),
            "tally": self.tally.state_dict(),
            "meter": self.meter.state_dict(),
            "left_gradients": self.plain.left_gradients(),
        }
        result: dict[str, Any] = plain(state)
        return result

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned, the global random numbers included.

        Model, optimizer and scheduler are built as they were for the saved run. The state becomes this
        trainer's own: it is not to be changed afterwards.

        Raises:
            UserError: the saved run had another configuration.
        """
        ours = self.config.model_dump()
        for name, value in state["config"].items():
            if ours.get(name) != value:
                raise UserError(
                    f"the saved run has {name}={value!r}, this one {ours.get(name)!r}: "
                    "go on with the configuration that it began with, or start anew"
                )
        Snapshot.from_state(state["parts"]).restore(*self.recovery.parts())
        self.recovery.load_state_dict(state["recovery"])
        for name, value in state["position"].items():
            setattr(self.position, name, value)
        self.tally.load_state_dict(state["tally"])
        self.meter.load_state_dict(state["meter"])
        self.plain.backward_calls = self.tally.backward_calls
        self.plain.leave_gradients(state["left_gradients"])

    # Telling

    def state(self) -> TrainingState:
        """Return where the run stands."""
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
        return TrainingStatistics.of(
            self.tally, self.trace(), self.planner.confidence, reference_loss, held_out_loss
        )

    def trace(self) -> list[Segment]:
        """Return every phase so far, the current one included."""
        return self.tally.trace + self.tally.segment(self.controller.phase)

    # One logical step, or a jump

    def _advance(self, load: Callable[[int], Any], limit: int) -> StepResult:
        """Run one logical step, or in Predict up to `limit` of them that need no batch in between."""
        self.meter.start()
        if self.controller.remaining == 0:
            self._next_phase()
        if self.controller.phase.is_real:
            return self._real_step(load)
        if self.controller.phase is Phase.PREDICT:
            return self._predict(load, limit)
        return self._correct_step(load)

    def _next_phase(self) -> None:
        trusted = True
        if self.controller.phase.is_real:
            assessment = self.planner.assess(self.tally.steps)
            trusted, self.position.confidence = assessment.trusted, assessment.confidence
            self.tally.decide(assessment.confidence)
            if not assessment.finite:
                self.recovery.recover("the weights are not finite")
                return
            if assessment.paid is not None and self.config.divergence_rule == "calibrated":
                (self.controller.restore_horizon if assessment.paid else self.controller.reduce_horizon)()
        self.recovery.leave_phase()
        confidence = self.position.confidence
        self.controller.enter(self.controller.decide(self.tally.steps, confidence, trusted=trusted))
        if self.controller.phase is Phase.PREDICT:
            self.meter.lap(Work.UPDATE)  # the checkpoint before a jump is part of the jump
        self._prepare(self.controller.phase)
        if self.controller.phase is not Phase.PREDICT:
            self.meter.lap(Work.UPDATE)

    def _prepare(self, phase: Phase) -> None:
        """Get ready for a phase that was just entered."""
        if phase is Phase.PREDICT:
            self.take_checkpoint()
            self.planner.plan()
        elif phase is Phase.FULL:
            self.planner.start_full()
            if self.recovery.checkpoint_due:
                self.take_checkpoint()

    def _real_step(self, load: Callable[[int], Any]) -> StepResult:
        self._tick(1)
        step = self.tally.steps
        batch = load(step)
        self.meter.lap(Work.BATCH)
        rate = self.plain.learning_rate
        measured = self.plain(batch)
        self.meter.lap(Work.PLAIN)
        self.tally.backward_calls = self.plain.backward_calls
        loss = float(measured)
        norm = self._gradient_norm()
        at = self.position
        keep = self.config.velocity_decay if at.mean_learning_rate else 0.0
        at.mean_learning_rate = keep * at.mean_learning_rate + (1 - keep) * rate
        predicted = None
        if at.jump_at is not None and at.real_at <= at.jump_at and isfinite(loss):
            predicted = self.planner.score(step, step - at.real_at, loss)
        at.real_at = step
        self.planner.observe(step, loss, at.gradient_norm, rate)
        if self.config.tail == "average" and self.controller.in_tail(step):
            self.planner.tail.observe()
        signal = self.recovery.watch(loss, norm, predicted, real=True)
        result = self._result(loss, norm if norm is not None else lambda: self._late_norm(step), signal)
        self.meter.lap(Work.OBSERVE)
        return result

    def _late_norm(self, step: int) -> float | None:
        """Measure the norm of the gradient of `step` while that is still the newest."""
        return self.plain.gradient_norm() if self.tally.steps == step else None

    def _gradient_norm(self) -> float | None:
        """Measure the norm of the newest gradient where it is due: at the first real step and every tenth.

        Reading every gradient throws the weights out of a processor's cache, which costs more than the norm.
        """
        self.position.real_steps += 1
        if self.position.real_steps % NORM_STRIDE and self.position.real_steps > 1:
            return None
        norm = self.plain.gradient_norm()
        if isfinite(norm):
            self.position.gradient_norm = norm  # what stands in for the steps in between
        return norm

    def _predict(self, load: Callable[[int], Any], limit: int) -> StepResult:
        controller, interval = self.controller, self.config.correction_interval
        done = controller.steps_in_current_phase
        length = interval or done + controller.remaining
        into = done % length
        if into == 0:
            ahead = min(length, controller.remaining)
            self._foresee(load, ahead, limit)
            rate = self.plain.skip(ahead)
            self.planner.jump(ahead, rate / self.position.mean_learning_rate if self._scheduled else 1.0)
        self._tick(min(limit, length - into, controller.remaining))
        self.position.jump_at = self.tally.steps
        self.meter.lap(Work.JUMP)
        if micro_correction_due(controller.steps_in_current_phase, interval):
            return self._probe(load)
        ahead, decisions = self.tally.steps - self.position.real_at, self.tally.decisions
        return self._result(lambda: self._late_forecast(ahead, decisions), None, None)

    def _foresee(self, load: Callable[[int], Any], ahead: int, limit: int) -> None:
        """Let the oracle, which no other predictor is, train ahead; its steps are plain ones."""
        oracle = self.planner.predictor
        if not isinstance(oracle, Oracle):
            return
        if ahead > limit:
            raise UserError("predictor='oracle' trains on batches to come: drive it with run(), not step()")
        begin = self.controller.steps_in_current_phase
        oracle.foresee(load, self.tally.steps, begin, ahead, self.meter)
        self.tally.backward_calls = self.plain.backward_calls

    @property
    def _scheduled(self) -> bool:
        return self.plain.scheduler is not None and self.position.mean_learning_rate > 0

    def _late_forecast(self, ahead: int, decisions: int) -> float:
        """Return a predicted loss while the forecast that it belongs to is the newest."""
        return self.planner.forecast(ahead) if self.tally.decisions == decisions else math.nan

    def _probe(self, load: Callable[[int], Any]) -> StepResult:
        """Measure the loss after a sub-jump: end the horizon where it fails its guard, else correct."""
        self.tally.micro_correct()
        loss, signal = self._measure(load)
        if self.controller.phase is Phase.PREDICT:
            if self.planner.is_bad(loss):
                self.planner.undo_last_move()
                self.tally.abort()
                self.controller.end_phase()
            else:
                self.planner.micro_correct(self.tally.steps)
        self.meter.lap(Work.SCORE)
        return self._result(loss, None, signal)

    def _correct_step(self, load: Callable[[int], Any]) -> StepResult:
        self._tick(1)
        self.plain.skip(1)
        loss, signal = self._measure(load)
        self.position.correct_losses.append(loss)
        if self.controller.phase is Phase.CORRECT and self.controller.remaining == 0:
            if self.planner.is_lost(fmean(self.position.correct_losses)):
                self.planner.take_half_back()
                self.tally.abort()
            else:
                self.planner.correct(self.tally.steps)
        self.meter.lap(Work.SCORE)
        return self._result(loss, None, signal)

    def _measure(self, load: Callable[[int], Any]) -> tuple[float, DivergenceSignal]:
        """Run one forward pass on the batch of this step, in the model's own mode; score the prediction."""
        step = self.tally.steps
        batch = load(step)
        self.meter.lap(Work.BATCH)
        with torch.no_grad():
            loss = float(self.plain.loss_fn(self.model, batch))
        self.tally.forward_only_calls += 1
        self.meter.lap(Work.FORWARD)
        predicted = self.planner.score(step, step - self.position.real_at, loss) if isfinite(loss) else None
        return loss, self.recovery.watch(loss, None, predicted)

    # Book-keeping

    def _tick(self, steps: int) -> None:
        """Count logical steps; predicted ones are logged here, since nothing is measured in them."""
        if self._log and self.controller.phase is Phase.PREDICT:
            into, interval = self.controller.steps_in_current_phase, self.config.correction_interval
            for i in range(1, steps + 1):
                if not micro_correction_due(into + i, interval):
                    step = self.tally.steps + i
                    forecast = self.planner.forecast(step - self.position.real_at)
                    self._log.predicted(step, forecast, self.position.confidence)
        self.tally.steps += steps
        self.controller.advance(steps)

    def _cycle_is_over(self) -> bool:
        controller = self.controller
        if controller.phase.is_real:
            return self.tally.steps - self._cycle_at >= REPORT_STEPS
        last = Phase.CORRECT if self.config.correct_steps else Phase.PREDICT
        return controller.phase is last and controller.remaining == 0

    def _result(
        self,
        loss: float | Callable[[], float],
        gradient_norm: float | Callable[[], float | None] | None,
        signal: DivergenceSignal | None,
    ) -> StepResult:
        return StepResult(
            step=self.tally.steps,
            phase=self.controller.phase,
            loss=loss,
            confidence=self.position.confidence,
            gradient_norm=gradient_norm,
            backward_reduction_pct=self.tally.backward_reduction_pct,
            signal=signal,
        )
