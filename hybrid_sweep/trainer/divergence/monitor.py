"""Six signals of divergence, four levels, and the recovery that each asks for."""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from hybrid_sweep.errors import UserError, unknown_name
from hybrid_sweep.trainer.alarms import LEVEL_ACTION, Action, Alarm, DivergenceLevel, DivergenceSignal
from hybrid_sweep.trainer.config import HybridConfig, current_value
from hybrid_sweep.trainer.divergence.loss_rules import (
    BURST,
    RECENT,
    CalibratedLossRule,
    LossReading,
    SeedLossRule,
)
from hybrid_sweep.trainer.divergence.norm_rules import CalibratedNormRule, SeedNormRule
from hybrid_sweep.trainer.learned import as_plain, restore
from hybrid_sweep.trainer.phases import Phase, TrainingState

__all__ = ["LEVEL_ACTION", "Action", "DivergenceLevel", "DivergenceMonitor", "DivergenceSignal"]

Rule = Literal["calibrated", "original"]


Waiting = tuple[int, float, int | None, float | None]
"""Step, loss, steps since the newest jump and gradient sample of a step that is not judged yet."""


@dataclass(slots=True)
class _Asked:
    """What was last asked by `check_divergence`, and the newest step that was no real one."""

    step: int | None = None
    loss: float = math.nan
    signal: DivergenceSignal | None = None
    jump_at: int | None = None


class DivergenceMonitor:
    """Watches the steps that are measured, and says what to do.

    Signals, limits and recoveries are the original's (Divergence Detection); under rule `calibrated`
    the severity of a deviation is Rust's: caution at 0.7 of the threshold, warning at 1, critical at 2.

    | signal | fires when | level and action |
    | --- | --- | --- |
    | `non_finite` | loss or gradient norm is NaN or infinite | critical, roll back |
    | `loss_deviation` | the loss rule says so (see `trainer.loss_rules`) | warning, force Full |
    | `loss_oscillation` | the loss rule says so | warning, force Full |
    | `gradient_explosion` | norm > 10 x baseline (see `trainer.norm_rules`) | warning, reduce the horizon |
    | `gradient_vanishing` | norm < 0.01 x baseline | warning, more Full steps |
    | `prediction_error` | relative error of the predicted loss > 20 % | caution, force Correct |

    Rule `original` is the original's table and no more: only what is not finite is critical. Rule
    `calibrated` judges the loss only on real steps, from the `grace_steps`-th after a jump on, except for
    one that is beyond anything seen; an explosion by 100 x is critical, unless gradients are clipped and it
    has done no harm; a prediction error is only logged.

    Not safe to share between threads.

    Args:
        config: whose `divergence_threshold` and `divergence_rule` are taken; None takes the two below.
        threshold: standard deviations of loss that count as divergence, > 0.
        rule: `calibrated` or `original`.
        gradient_explosion: multiple of the baseline, > 1.
        gradient_vanishing: multiple of the baseline, in (0, 1).
        prediction_error: |predicted - measured| / |measured|, > 0.
        grace_steps: the first real step after a jump whose loss is judged.
        clipped: whether gradients are clipped before they act.
        shown: whether `observe` or `defer` will show it its losses, as they do from their first call on.

    Raises:
        UserError: an unknown rule or a limit out of range.
    """

    def __init__(
        self,
        config: HybridConfig | None = None,
        *,
        threshold: float = 3.0,
        rule: Rule = "calibrated",
        gradient_explosion: float = 10.0,
        gradient_vanishing: float = 0.01,
        prediction_error: float = 0.20,
        grace_steps: int = 3,
        clipped: bool = False,
        shown: bool = False,
    ) -> None:
        if config is not None:
            threshold, rule = config.divergence_threshold, config.divergence_rule
        rule = current_value("divergence_rule", rule)
        if rule not in get_args(Rule):
            raise unknown_name("divergence rule", rule, list(get_args(Rule)))
        for name, value, allowed, good in (
            ("threshold", threshold, "> 0", 0 < threshold < math.inf),
            ("gradient_explosion", gradient_explosion, "> 1", gradient_explosion > 1),
            ("gradient_vanishing", gradient_vanishing, "> 0, < 1", 0 < gradient_vanishing < 1),
            ("prediction_error", prediction_error, "> 0", prediction_error > 0),
            ("grace_steps", grace_steps, ">= 0", grace_steps >= 0),
        ):
            if not good:
                raise UserError(f"{name}={value!r} is not allowed (allowed: {allowed})")
        self.rule = rule
        self.prediction_error = prediction_error
        self.grace_steps = grace_steps
        self._literal = rule == "original"
        self._clipped = clipped
        self._critical_explosion = 10 * gradient_explosion
        self._loss = SeedLossRule(threshold) if self._literal else CalibratedLossRule(threshold)
        limits = gradient_explosion, gradient_vanishing
        self._sample = SeedNormRule(*limits) if self._literal else CalibratedNormRule(*limits)
        self._norm = SeedNormRule(*limits) if self._literal else CalibratedNormRule(*limits, **SELDOM)
        self._steps_since_jump = 0
        self._real_since_jump = 0
        self._waiting: list[Waiting] = []
        self._shown = shown
        self._asked = _Asked()

    @property
    def calm(self) -> bool:
        """Whether nothing is suspected, and the newest jump is some real steps back."""
        judged = self._real_since_jump - self.grace_steps
        return self._loss.calm and (not self._steps_since_jump or judged >= RECENT)

    def defer(
        self, step: int, loss: float, steps_since_jump: int | None, gradient_sample: float | None = None
    ) -> None:
        """Take note of a real step; judged in blocks they cost far less than one by one.

        Args:
            step: logical step, by which `catch_up` names it.
            loss: as for `observe`.
            steps_since_jump: as for `observe`.
            gradient_sample: as for `observe`.
        """
        self._waiting.append((step, loss, steps_since_jump, gradient_sample))

    def catch_up(
        self, *, confidence: float | None = None, warmup: bool = False
    ) -> list[tuple[int, DivergenceSignal]]:
        """Judge the steps that wait, in their order; return them with what `observe` says of each."""
        waiting, self._waiting = self._waiting, []
        return [
            (
                step,
                self.observe(
                    loss,
                    real=True,
                    steps_since_jump=since,
                    confidence=confidence,
                    warmup=warmup,
                    gradient_sample=sample,
                ),
            )
            for step, loss, since, sample in waiting
        ]

    def observe(
        self,
        loss: float,
        gradient_norm: float | None = None,
        *,
        real: bool | None = None,
        predicted_loss: float | None = None,
        steps_since_jump: int | None = None,
        confidence: float | None = None,
        warmup: bool = False,
        gradient_sample: float | None = None,
    ) -> DivergenceSignal:
        """Judge one measured step, then learn from it. To be called once a measured step, in order.

        Args:
            loss: of the batch; may be NaN or infinite.
            gradient_norm: total norm before clipping; None where it was not measured.
            real: whether it was a real step and not a forward pass alone; None takes a measured norm for a
                yes.
            predicted_loss: what had been predicted for this step, if anything was.
            steps_since_jump: logical steps since the newest jump; None before the first.
            confidence: of the predictor; passed through.
            warmup: learn only; non-finite values still count.
            gradient_sample: norm of a part of the gradient, always the same one; None where it was not
                measured.
        """
        self._shown = True
        real = gradient_norm is not None if real is None else real
        settled = steps_since_jump is None or self._has_settled(steps_since_jump, real)
        norms = gradient_sample, gradient_norm
        young = bool(self._steps_since_jump) and self._real_since_jump < YOUNG
        return self._judge(
            loss,
            norms,
            predicted_loss,
            confidence,
            settled=settled,
            unheard=warmup,
            young=young,
            bursts=real,
        )

    def _judge(
        self,
        loss: float,
        norms: tuple[float | None, float | None],
        predicted_loss: float | None,
        confidence: float | None,
        *,
        settled: bool,
        young: bool,
        unheard: bool,
        bursts: bool,
    ) -> DivergenceSignal:
        alarms: list[Alarm] = []
        deviation = math.nan
        sample, norm = norms
        if not math.isfinite(loss + (norm or 0.0) + (sample or 0.0)):
            alarms.append(_non_finite(loss, norm, sample))
        else:
            if settled or self._literal:
                reading = self._loss.observe(loss)
                deviation = reading.deviation
                if not unheard and (reading.oscillating or reading.severity >= 0.7):
                    alarms += self._loss_alarms(loss, reading)
            elif bursts and not unheard and self._loss.is_absurd(loss):
                alarms += self._loss_alarms(loss, BURST)
            for rule, measured in ((self._sample, sample), (self._norm, norm)):
                if measured is not None:
                    off = rule.observe(measured, settled=settled, young=young, heard=not unheard)
                    if off is not None and not unheard:
                        alarms.append(self._gradient_alarm(measured, off))
            if predicted_loss is not None and not unheard:
                error = abs(predicted_loss - loss) / max(abs(loss), 1e-8)
                if not error <= self.prediction_error:
                    alarms.append(self._prediction_alarm(predicted_loss, loss, error))
        if not alarms:
            return DivergenceSignal(
                DivergenceLevel.NORMAL, "none", "", Action.CONTINUE, predicted_loss, deviation, confidence
            )
        top = max(alarms)
        action = max(alarm.action for alarm in alarms)
        return DivergenceSignal(
            top.level, top.name, top.description, action, predicted_loss, deviation, confidence
        )

    def check_divergence(self, state: TrainingState, loss: float) -> DivergenceSignal:
        """Judge the loss of the step that led to `state` (the original's call, once a step).

        A monitor of the caller's own learns from these calls, from the first one of a step alone. One that is
        shown its losses otherwise, as the trainer's is, learns nothing here.

        Args:
            state: right after the step.
            loss: its loss; in Predict a prediction is told from a measurement by not being the state's.
        """
        asked = self._asked
        if self._shown:
            return deepcopy(self).observe(loss, real=True, confidence=state.confidence)
        if state.step == asked.step:
            if asked.signal is None or loss != asked.loss:
                return deepcopy(self)._ask(state, loss)
            return asked.signal
        asked.step, asked.loss = state.step, loss
        asked.signal = self._ask(state, loss)
        return asked.signal

    def _ask(self, state: TrainingState, loss: float) -> DivergenceSignal:
        if not state.phase.is_real:
            self._asked.jump_at = state.step
        since = None if self._asked.jump_at is None else state.step - self._asked.jump_at
        settled = since is None or self._has_settled(since, state.phase.is_real)
        predicted = loss if state.phase is Phase.PREDICT and loss != state.loss else None
        return self._judge(
            loss,
            (None, None),
            predicted,
            state.confidence,
            settled=settled,
            unheard=False,
            young=False,
            bursts=True,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return what was learned, as plain numbers, lists and dictionaries."""
        return {
            "rule": self.rule,
            "loss": as_plain(self._loss),
            "norm": as_plain(self._norm),
            "sample": as_plain(self._sample),
            **{name: getattr(self, f"_{name}") for name in _COUNTERS},
            "waiting": list(self._waiting),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what a monitor of the same rule had learned; limits stay as they are.

        Raises:
            UserError: the state of a monitor with the other rule.
        """
        if current_value("divergence_rule", state["rule"]) != self.rule:
            raise UserError(
                f"the saved monitor has divergence_rule={state['rule']!r}, this one {self.rule!r}: "
                "resume with the rule that the run began with"
            )
        restore(self._loss, {**state["loss"], "threshold": self._loss.threshold})
        for rule, learned in ((self._norm, state["norm"]), (self._sample, state["sample"])):
            restore(rule, {**learned, "explosion": rule.explosion, "vanishing": rule.vanishing})
        for name in _COUNTERS:
            setattr(self, f"_{name}", state[name])
        self._waiting = [(step, loss, since, sample) for step, loss, since, sample in state["waiting"]]

    def _has_settled(self, steps_since_jump: int, real: bool) -> bool:
        """Count the real steps since the newest jump, and say whether there were enough."""
        if not real or steps_since_jump <= self._steps_since_jump:
            self._real_since_jump = 0
        self._steps_since_jump = steps_since_jump
        if not real:
            return False
        self._real_since_jump += 1
        if self._real_since_jump == max(self.grace_steps, 1):
            self._loss.expect_fall()
        return self._real_since_jump >= self.grace_steps

    def _loss_alarms(self, loss: float, reading: LossReading) -> list[Alarm]:
        native, proposed = DivergenceLevel.WARNING, Action.FORCE_FULL
        severity, alarms = reading.severity, []
        if severity >= (1 if self._literal else 0.7):
            level = native if self._literal else DivergenceLevel(1 + (severity >= 1) + (severity >= 2))
            by = f"deviates by {reading.deviation:+.1f} sigma"
            if math.isnan(reading.deviation):
                by = "is beyond anything seen before"
            alarms.append(
                Alarm.from_levels("loss_deviation", native, proposed, level, f"loss {loss:.4g} {by}")
            )
        if reading.oscillating:
            text = f"loss {loss:.4g} swings up and down"
            alarms.append(Alarm.from_levels("loss_oscillation", native, proposed, native, text))
        return alarms

    def _gradient_alarm(self, norm: float, ratio: float) -> Alarm:
        level = DivergenceLevel.WARNING
        if not (self._literal or self._clipped) and ratio > self._critical_explosion:
            level = DivergenceLevel.CRITICAL
        name, action = ("gradient_vanishing", Action.INCREASE_FULL)
        if ratio > 1:
            name, action = ("gradient_explosion", Action.REDUCE_RATIO)
        text = f"gradient norm {norm:.4g} is {ratio:.3g} times its baseline"
        return Alarm.from_levels(name, DivergenceLevel.WARNING, action, level, text)

    def _prediction_alarm(self, predicted_loss: float, loss: float, error: float) -> Alarm:
        return Alarm.from_levels(
            "prediction_error",
            DivergenceLevel.CAUTION,
            Action.FORCE_CORRECT if self._literal else Action.CONTINUE,
            DivergenceLevel.CAUTION,
            f"predicted loss {predicted_loss:.4g} is {error:.0%} off the measured {loss:.4g}",
        )


_COUNTERS: Final = ("steps_since_jump", "real_since_jump")
YOUNG: Final = 10
"""Real steps after a jump in which norms may be high."""
SELDOM: Final = {"minimum": 5, "patience": 3}
"""How a norm is learned that is measured at every tenth real step."""


def _non_finite(loss: float, *norms: float | None) -> Alarm:
    culprit = f"loss is {loss}"
    if math.isfinite(loss):
        culprit = f"gradient norm is {next(n for n in norms if n is not None and not math.isfinite(n))}"
    return Alarm(DivergenceLevel.CRITICAL, Action.ROLLBACK, "non_finite", culprit)
