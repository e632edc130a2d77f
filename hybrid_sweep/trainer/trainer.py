"""HybridTrainer: puts the rooms of this package in order; the mathematics is theirs."""

from __future__ import annotations

import math
from collections.abc import Callable
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
from hybrid_sweep.trainer.divergence import Action, DivergenceLevel, DivergenceMonitor, DivergenceSignal
from hybrid_sweep.trainer.divergence_log import DivergenceLog
from hybrid_sweep.trainer.phases import Phase, PhaseController, TrainingState
from hybrid_sweep.trainer.plain import Batches, LossFunction, PlainStep, as_loader
from hybrid_sweep.trainer.planner import JumpPlanner
from hybrid_sweep.trainer.records import (
    Segment,
    StepResult,
    Tally,
    TrainingDiverged,
    TrainingStatistics,
)
from hybrid_sweep.trainer.snapshot import Snapshot, Stateful

NORM_STRIDE = 4
"""Real steps from one measured gradient norm to the next."""
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
        UserError: for a scheduler that needs a metric, or a model without trainable parameters.
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
        self.monitor = DivergenceMonitor(
            threshold=self.config.divergence_threshold, rule=self.config.divergence_rule
        )
        self.planner = JumpPlanner(model, self.config)
        self.tally = Tally()
        self.meter = CostMeter(self.plain.parameters[0].device)
        self._confidence = 0.0
        self._loss: float | None = None
        self._norm = 0.0  # of the newest measured gradient
        self._real_steps = 0
        self._mean_learning_rate = 0.0  # over the averaged updates
        self._real_at: int = 0  # logical step of the newest real step
        self._jump_at: int | None = None  # logical step that the newest jump reached
        self._cycle_at = 0
        self._reduced = False  # the horizon, or the Full phases, in this phase
        self._correct_losses: list[float] = []
        self._log = DivergenceLog(divergence_log) if divergence_log else None
        self.take_checkpoint()

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
        return self.tally.steps < total_steps

    def force_phase(self, phase: Phase, steps: int) -> None:
        """Run `phase` for the next `steps` logical steps, whatever the confidence; then normal control.

        Raises:
            UserError: when `steps` is not positive.
        """
        if steps < 1:
            raise UserError(f"steps={steps} is not allowed: a forced phase needs at least 1")
        self._leave_phase()
        self.controller.force_phase(phase, steps)
        self._prepare(phase)

    def take_checkpoint(self) -> None:
        """Remember everything that `rollback_to_checkpoint` restores."""
        self._checkpoint = Snapshot(*self._parts())
        self._checkpoint_at = self.tally.steps
        self._marks = self._real_at, self._jump_at

    def rollback_to_checkpoint(self) -> None:
        """Restore model, optimizer, random numbers, predictor and controller.

        The count of logical steps goes on, and the learning-rate schedule with it: a step that was taken is
        taken.
        """
        self._leave_phase()
        self._checkpoint.restore(*self._parts())
        self.tally.rollbacks += 1
        since = self.tally.steps - self._checkpoint_at
        real_at, jump_at = self._marks
        self._real_at, self._jump_at = real_at + since, None if jump_at is None else jump_at + since
        self.plain.skip(since)

    # Telling

    def state(self) -> TrainingState:
        """Return where the run stands."""
        return TrainingState(
            step=self.tally.steps,
            phase=self.controller.phase,
            steps_in_current_phase=self.controller.steps_in_current_phase,
            loss=self._loss,
            confidence=self._confidence,
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
            trusted, self._confidence = assessment.trusted, assessment.confidence
            self.tally.decide(self._confidence)
            if not assessment.finite:
                self._recover("the weights are not finite")
                return
            if assessment.paid is not None and self.config.divergence_rule == "calibrated":
                (self.controller.restore_horizon if assessment.paid else self.controller.reduce_horizon)()
        self._leave_phase()
        self.controller.enter(self.controller.decide(self.tally.steps, self._confidence, trusted=trusted))
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
            if self.tally.steps - self._checkpoint_at >= self.config.checkpoint_interval:
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
        keep = self.config.velocity_decay if self._mean_learning_rate else 0.0
        self._mean_learning_rate = keep * self._mean_learning_rate + (1 - keep) * rate
        predicted = None
        if self._jump_at is not None and self._real_at <= self._jump_at and isfinite(loss):
            predicted = self.planner.score(step, step - self._real_at, loss)
        self._real_at = step
        self.planner.observe(step, loss, self._norm, rate)
        signal = self._watch(loss, norm, predicted, real=True)
        result = self._result(loss, norm if norm is not None else lambda: self._late_norm(step), signal)
        self.meter.lap(Work.OBSERVE)
        return result

    def _late_norm(self, step: int) -> float | None:
        """Measure the norm of the gradient of `step` while that is still the newest."""
        return float(self.plain.gradient_norm()) if self.tally.steps == step else None

    def _gradient_norm(self) -> float | None:
        """Measure the norm of the newest gradient where it is due, every fourth real step.

        Reading every gradient throws the weights out of a processor's cache, which costs more than the norm.
        """
        self._real_steps += 1
        if self._real_steps % NORM_STRIDE != 1:
            return None
        norm = float(self.plain.gradient_norm())
        if isfinite(norm):
            self._norm = norm  # what stands in for the steps in between
        return norm

    def _predict(self, load: Callable[[int], Any], limit: int) -> StepResult:
        controller, interval = self.controller, self.config.correction_interval
        done = controller.steps_in_current_phase
        length = interval or done + controller.remaining
        into = done % length
        if into == 0:
            ahead = min(length, controller.remaining)
            rate = self.plain.skip(ahead)
            self.planner.jump(ahead, rate / self._mean_learning_rate if self._scheduled else 1.0)
        self._tick(min(limit, length - into, controller.remaining))
        self._jump_at = self.tally.steps
        self.meter.lap(Work.JUMP)
        if micro_correction_due(controller.steps_in_current_phase, interval):
            return self._probe(load)
        ahead, decisions = self.tally.steps - self._real_at, self.tally.decisions
        return self._result(lambda: self._late_forecast(ahead, decisions), None, None)

    @property
    def _scheduled(self) -> bool:
        return self.plain.scheduler is not None and self._mean_learning_rate > 0

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
        self._correct_losses.append(loss)
        if self.controller.phase is Phase.CORRECT and self.controller.remaining == 0:
            if self.planner.is_lost(fmean(self._correct_losses)):
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
        predicted = self.planner.score(step, step - self._real_at, loss) if isfinite(loss) else None
        return loss, self._watch(loss, None, predicted)

    # Watching

    def _watch(
        self, loss: float, gradient_norm: float | None, predicted: float | None, *, real: bool = False
    ) -> DivergenceSignal:
        """Show a measured loss to the monitor and do what it asks for."""
        tally = self.tally
        self._loss = loss
        tally.measure(loss, gradient_norm)
        signal = self.monitor.observe(
            loss,
            gradient_norm,
            real=real,
            predicted_loss=predicted,
            steps_since_jump=None if self._jump_at is None else tally.steps - self._jump_at,
            confidence=self._confidence,
            warmup=self.controller.phase is Phase.WARMUP,
        )
        if self._log:
            norm = float(self.plain.gradient_norm()) if real else None
            self._log.measured(tally.steps, loss, norm, signal)
        if signal.level >= DivergenceLevel.WARNING:
            tally.warning_steps += 1
        if signal.action is not Action.CONTINUE:
            self._act(signal)
        return signal

    def _act(self, signal: DivergenceSignal) -> None:
        """Carry out the recovery that a signal asks for; a Warmup is only ever rolled back."""
        if signal.action is Action.ROLLBACK:
            self._recover(signal.description)
        elif self.controller.phase is Phase.WARMUP:
            return
        elif signal.action is Action.FORCE_FULL:
            self.force_phase(Phase.FULL, self.config.force_full_steps)
        elif signal.action is Action.FORCE_CORRECT and self.config.correct_steps > 0:
            self.force_phase(Phase.CORRECT, self.config.correct_steps)
        elif not self._reduced:  # once a phase: an alarm that lasts is one alarm
            self._reduced = True
            if signal.action is Action.REDUCE_RATIO:
                self.controller.reduce_horizon()
            elif signal.action is Action.INCREASE_FULL:
                self.controller.grow_full_steps()

    def _recover(self, why: str) -> None:
        if self.tally.rollbacks >= self.config.max_rollbacks:
            raise TrainingDiverged(
                f"{why} at step {self.tally.steps}, after {self.tally.rollbacks} rollbacks"
            )
        self.rollback_to_checkpoint()
        self.force_phase(Phase.FULL, self.config.force_full_steps)

    # Book-keeping

    def _tick(self, steps: int) -> None:
        """Count logical steps; predicted ones are logged here, since nothing is measured in them."""
        if self._log and self.controller.phase is Phase.PREDICT:
            into, interval = self.controller.steps_in_current_phase, self.config.correction_interval
            for i in range(1, steps + 1):
                if not micro_correction_due(into + i, interval):
                    step = self.tally.steps + i
                    self._log.predicted(step, self.planner.forecast(step - self._real_at), self._confidence)
        self.tally.steps += steps
        self.controller.advance(steps)

    def _leave_phase(self) -> None:
        """Close the books of the current phase."""
        self.tally.leave(self.controller.phase)
        self._reduced = False
        self._correct_losses = []

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
            confidence=self._confidence,
            gradient_norm=gradient_norm,
            backward_reduction_pct=self.tally.backward_reduction_pct,
            signal=signal,
        )

    def _parts(self) -> tuple[dict[str, Stateful], dict[str, Stateful]]:
        torchs: dict[str, Any] = {
            "model": self.model,
            "optimizer": self.optimizer,
            "scheduler": self.plain.scheduler,
        }
        ours: dict[str, Stateful] = {
            "planner": self.planner,
            "controller": self.controller,
            "monitor": self.monitor,
        }
        return {name: part for name, part in torchs.items() if part is not None}, ours
