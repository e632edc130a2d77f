"""Stepper: what a logical step does in each phase, and what comes between two phases."""

from __future__ import annotations

import math
from collections.abc import Callable
from math import isclose, isfinite
from statistics import fmean
from typing import Any

from hybrid_sweep.errors import UserError
from hybrid_sweep.trainer.cost_meter import Work
from hybrid_sweep.trainer.forecast.corrector import micro_correction_due
from hybrid_sweep.trainer.forecast.outlook import Outlook
from hybrid_sweep.trainer.gradient_watch import GradientWatch, norm_of
from hybrid_sweep.trainer.phases import DecisionPoint, Phase
from hybrid_sweep.trainer.predictors import Oracle
from hybrid_sweep.trainer.records import Signal, StepResult
from hybrid_sweep.trainer.recovery import Parts, Recovery, as_number, is_at_hand
from hybrid_sweep.trainer.state import Unread
from hybrid_sweep.trainer.train_step import PendingStep, StepGenerator, run_to_completion

NORM_STRIDE = 10
"""Real steps from one measured gradient norm to the next: the same ones that the EMA of updates takes in."""
REPORT_STEPS = 100
"""Logical steps after which a cycle is over even though nothing was predicted."""


class Stepper:
    """Takes one logical step, or one jump, at a time.

    Args:
        parts: of the run.

    Attributes:
        recovery: what watches the losses that are measured.
        on_decision: called before the next phase is entered, with everything known that decides it.
    """

    def __init__(self, parts: Parts) -> None:
        self._config, self._plain, self._meter = parts.config, parts.plain, parts.meter
        self._controller, self._planner = parts.controller, parts.planner
        self._tally, self._position, self._log = parts.tally, parts.position, parts.log
        self.on_decision: Callable[[], None] | None = None
        self.recovery = Recovery(parts)
        self._watch = GradientWatch(parts.plain)

    def advance(self, load: Callable[[int], Any], limit: int) -> StepResult:
        """Run one logical step, or in Predict up to `limit` of them that need no batch in between."""
        return run_to_completion(self.iter_advance(load, limit))

    def iter_advance(self, load: Callable[[int], Any], limit: int) -> StepGenerator[StepResult]:
        """As `advance`, but leave the real step to the caller."""
        decides = self._controller.remaining == 0
        self._meter.start(always=decides or not self._controller.phase.is_real)
        if decides:
            self._next_phase()
        if self._controller.phase.is_real:
            return (yield from self._real_step(load))
        if self._controller.phase is Phase.PREDICT:
            return self._predict(load, limit)
        return self._correct_step(load)

    def cycle_is_over(self, started_at: int) -> bool:
        """Return whether the cycle that began after logical step `started_at` is at its end."""
        controller = self._controller
        if controller.phase.is_real:
            return self._tally.steps - started_at >= REPORT_STEPS
        last = Phase.CORRECT if self._config.correct_steps else Phase.PREDICT
        return controller.phase is last and controller.remaining == 0

    def crossing(self) -> DecisionPoint:
        """Return what `HybridTrainer.crossing` does."""
        controller, at = self._controller, self._position
        return DecisionPoint(
            controller.state_dict(), controller.total_steps, self._tally.steps, at.confidence, at.trusted
        )

    def _next_phase(self) -> None:
        position = self._position
        if self.recovery.follow_parameters():
            position.trusted = False
        if self._controller.phase.is_real and not position.assessed and not self._assess():
            return
        if self.on_decision:
            self._meter.lap(Work.UPDATE, count=False)
            self.on_decision()
            self._meter.start(always=True)
        learned = self._controller.phase.is_real and position.learned
        self.recovery.leave_phase()
        if self._controller.could_predict(self._tally.steps, trusted=position.trusted):
            self._tally.offer(position.confidence)
        self._controller.enter(
            self._controller.decide(self._tally.steps, position.confidence, trusted=position.trusted)
        )
        position.assessed, position.trusted = False, True
        predicts = self._controller.phase is Phase.PREDICT
        self._meter.lap(Work.UPDATE, count=learned)
        self.recovery.prepare(self._controller.phase)
        self._meter.lap(Work.CHECKPOINT if predicts else Work.UPDATE, count=predicts)

    def _assess(self) -> bool:
        """Learn from the Full phase that ended; return whether there is anything to decide."""
        assessment = self._planner.assess(self._tally.steps)
        self._position.trusted, self._position.confidence = assessment.trusted, assessment.confidence
        self._position.assessed, self._position.learned = True, assessment.learned
        self._tally.decide(assessment.confidence)
        if not assessment.finite:
            self._position.assessed, self._position.trusted = False, True
            self.recovery.recover("the weights are not finite")
        elif assessment.paid is not None and self._config.divergence_rule == "calibrated":
            (self._controller.restore_horizon if assessment.paid else self._controller.reduce_horizon)()
        return assessment.finite

    def _real_step(self, load: Callable[[int], Any]) -> StepGenerator[StepResult]:
        self._tick(1)
        step, phase = self._tally.steps, self._controller.phase
        batch = load(step)
        self._meter.lap(Work.BATCH)
        rate = self._plain.learning_rate
        measured = yield PendingStep(self._plain, batch, self._planner.groups)
        self._meter.lap(Work.PLAIN)
        self._tally.count(self._plain)
        norm = self._gradient_norm()
        at = self._position
        sample = self._watch.take(at.real_steps)
        keep = self._config.velocity_decay if at.mean_learning_rate else 0.0
        at.mean_learning_rate = keep * at.mean_learning_rate + (1 - keep) * rate
        to_score = at.jump_at is not None and at.real_at <= at.jump_at
        before, at.real_at = at.real_at, step
        self._planner.observe()
        if self._config.tail == "average" and self._controller.in_tail(step):
            self._planner.tail.observe()
        loss = (
            as_number(measured) if is_at_hand(measured) else measured.clone()
        )  # whose memory may be used again
        if norm is None and not (to_score or self._log or self.recovery.ends_block(step, loss)):
            signal = self.recovery.defer(
                Unread(step, loss, at.gradient_norm, sample, rate, at.since_jump(step))
            )
        else:
            self.recovery.read()
            loss = as_number(loss)
            scored = to_score and isfinite(loss)
            predicted = self._planner.score(step, step - before, loss) if scored else None
            self._planner.record(step, loss, at.gradient_norm, rate)
            signal = self.recovery.watch(
                loss,
                norm,
                predicted,
                real=True,
                gradient_sample=None if sample is None else float(norm_of(sample)),
            )
        told_norm = norm if norm is not None else lambda: self._late_norm(step)
        result = self._result(phase, loss, told_norm, signal)
        self._meter.lap(Work.OBSERVE)
        if self.recovery.renew_checkpoint():
            self._meter.lap(Work.CHECKPOINT)
        return result

    def _late_norm(self, step: int) -> float | None:
        """Measure the norm of the gradient of `step` while that is still the newest."""
        return self._plain.gradient_norm() if self._tally.steps == step else None

    def _gradient_norm(self) -> float | None:
        """Measure the norm of the newest gradient where it is due: at the first real step and every tenth.

        Reading every gradient throws the weights out of a processor's cache, which costs more than the norm.
        """
        self._position.real_steps += 1
        if self._position.real_steps % NORM_STRIDE and self._position.real_steps > 1:
            return None
        norm = self._plain.gradient_norm()
        if isfinite(norm):
            self._position.gradient_norm = norm  # what stands in for the steps in between
        return norm

    def _predict(self, load: Callable[[int], Any], limit: int) -> StepResult:
        controller, interval = self._controller, self._planner.schedule.interval
        done = controller.steps_in_current_phase
        length = interval or done + controller.remaining
        into = done % length
        if into == 0:
            ahead = min(length, controller.remaining)
            self._foresee(load, ahead, limit)
            self._planner.jump(ahead, self._rate_ratio(self._plain.skip(ahead)))
        self._tick(min(limit, length - into, controller.remaining))
        self._position.jump_at = self._tally.steps
        self._meter.lap(Work.JUMP)
        if micro_correction_due(controller.steps_in_current_phase, interval):
            return self._probe(load)
        ahead, decisions = self._tally.steps - self._position.real_at, self._tally.decisions
        outlook = self._planner.outlook
        return self._result(Phase.PREDICT, lambda: self._late_forecast(ahead, decisions, outlook), None, None)

    def _foresee(self, load: Callable[[int], Any], ahead: int, limit: int) -> None:
        """Let the oracle, which no other predictor is, train ahead; its steps are plain ones."""
        oracle = self._planner.predictor
        if not isinstance(oracle, Oracle):
            return
        if ahead > limit:
            raise UserError("predictor='oracle' trains on batches to come: drive it with run(), not step()")
        begin = self._controller.steps_in_current_phase
        oracle.foresee(load, self._tally.steps, begin, ahead, self._meter)
        self._tally.count(self._plain)

    def _rate_ratio(self, rate: float) -> float:
        """Return the mean learning rate of a horizon over that of the averaged updates.

        Without a schedule here the caller may have one; a constant rate is its own mean but for rounding.
        """
        mean = self._position.mean_learning_rate
        if mean <= 0 or (self._plain.scheduler is None and isclose(rate, mean)):
            return 1.0
        return rate / mean

    def _late_forecast(self, ahead: int, decisions: int, outlook: Outlook) -> float:
        """Return a predicted loss, as of its step, while the roll-out that it belongs to is the newest."""
        return self._planner.forecast(ahead, outlook) if self._tally.decisions == decisions else math.nan

    def _probe(self, load: Callable[[int], Any]) -> StepResult:
        """Measure the loss after a sub-jump: end the horizon where it fails its guard, else correct."""
        self._tally.micro_correct(self._planner.schedule.interval)
        loss, signal = self._measure(load)
        if self._controller.phase is Phase.PREDICT:
            if self._planner.is_bad(loss):
                self._planner.undo_last_move()
                self._tally.abort()
                self._controller.end_phase()
            else:
                self._planner.micro_correct(self._tally.steps)
        self._meter.lap(Work.SCORE)
        return self._result(Phase.PREDICT, loss, None, signal)

    def _correct_step(self, load: Callable[[int], Any]) -> StepResult:
        self._tick(1)
        self._plain.skip(1)
        loss, signal = self._measure(load)
        self._position.correct_losses.append(loss)
        if self._controller.phase is Phase.CORRECT and self._controller.remaining == 0:
            if self._planner.is_lost(fmean(self._position.correct_losses)):
                self._planner.take_half_back()
                self._tally.abort()
            else:
                self._planner.correct(self._tally.steps)
        self._meter.lap(Work.SCORE)
        return self._result(Phase.CORRECT, loss, None, signal)

    def _measure(self, load: Callable[[int], Any]) -> tuple[float, Signal]:
        """Run one forward pass on the batch of this step, in the model's own mode; score the prediction."""
        step = self._tally.steps
        batch = load(step)
        self._meter.lap(Work.BATCH)
        loss = as_number(self._plain.look(batch))
        self._tally.forward_only_calls += 1
        self._meter.lap(Work.FORWARD)
        predicted = self._planner.score(step, step - self._position.real_at, loss) if isfinite(loss) else None
        return loss, self.recovery.watch(loss, None, predicted)

    def _tick(self, steps: int) -> None:
        """Count logical steps; predicted ones are logged here, since nothing is measured in them."""
        if self._log and self._controller.phase is Phase.PREDICT:
            into, interval = self._controller.steps_in_current_phase, self._planner.schedule.interval
            for i in range(1, steps + 1):
                if not micro_correction_due(into + i, interval):
                    step = self._tally.steps + i
                    forecast = self._planner.forecast(step - self._position.real_at)
                    self._log.predicted(step, forecast, self._position.confidence)
        self._tally.steps += steps
        self._controller.advance(steps)

    def _result(
        self,
        phase: Phase,
        loss: Any,
        gradient_norm: float | Callable[[], float | None] | None,
        signal: Signal | None,
    ) -> StepResult:
        """Tell of a step that was in `phase`, whatever phase an alarm of its has started since."""
        return StepResult(
            step=self._tally.steps,
            phase=phase,
            loss=loss,
            confidence=self._position.confidence,
            gradient_norm=gradient_norm,
            backward_reduction_pct=self._tally.backward_reduction_pct,
            signal=signal,
        )
