"""Six signals of divergence, four levels, and the recovery that each asks for."""

from __future__ import annotations

import math
from collections import deque
from copy import deepcopy
from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Any, ClassVar, Final, Literal, NamedTuple, get_args

from hybrid_sweep.errors import UserError, unknown_name
from hybrid_sweep.trainer.loss_rules import MINIMUM_LOSSES, CalibratedLossRule, SeedLossRule
from hybrid_sweep.trainer.phases import TrainingState

Rule = Literal["calibrated", "seed"]


class DivergenceLevel(IntEnum):
    """How bad it is (seed, Divergence monitoring)."""

    NORMAL = 0
    CAUTION = 1
    WARNING = 2
    CRITICAL = 3


class Action(IntEnum):
    """What to do about it; where two are asked for, the greater one is done (inventory C-17)."""

    CONTINUE = 0
    REDUCE_RATIO = 1
    INCREASE_FULL = 2
    FORCE_CORRECT = 3
    FORCE_FULL = 4
    ROLLBACK = 5


LEVEL_ACTION: Final = {
    DivergenceLevel.NORMAL: Action.CONTINUE,
    DivergenceLevel.CAUTION: Action.CONTINUE,
    DivergenceLevel.WARNING: Action.FORCE_FULL,
    DivergenceLevel.CRITICAL: Action.ROLLBACK,
}


@dataclass(frozen=True, slots=True)
class DivergenceSignal:
    """The monitor's word on one observed step.

    Attributes:
        level: the highest level among the signals that fired.
        name: the signal that fired at that level; `none` where all is well.
        description: one sentence with the figures; empty where all is well.
        action: the strongest recovery that was asked for.
        predicted_loss: what had been predicted for this step; None where nothing was.
        deviation_sigmas: of the loss, as `divergence_rule` defines it; NaN where it was not judged.
        confidence: of the predictor, in [0, 1]; None where none was given.
    """

    level: DivergenceLevel
    name: str
    description: str
    action: Action
    predicted_loss: float | None
    deviation_sigmas: float
    confidence: float | None

    @classmethod
    def unmeasured(cls, predicted_loss: float | None, confidence: float | None) -> DivergenceSignal:
        """Return the signal of a predicted step, of which nothing is known."""
        return cls(DivergenceLevel.NORMAL, "none", "", Action.CONTINUE, predicted_loss, math.nan, confidence)


class _Alarm(NamedTuple):
    """One signal that fired; alarms compare by level, then by action."""

    level: DivergenceLevel
    action: Action
    name: str
    description: str

    @classmethod
    def of(
        cls, name: str, native: DivergenceLevel, proposed: Action, level: DivergenceLevel, description: str
    ) -> _Alarm:
        """Take the signal's own proposal at its own level, the level's action below, both above."""
        if level < native:
            action = LEVEL_ACTION[level]
        else:
            action = proposed if level == native else max(proposed, LEVEL_ACTION[level])
        return cls(level, action, name, description)


@dataclass(slots=True)
class _NormBaseline:
    """Moving averages of the gradient norm and of the loss: what a gradient is compared with."""

    MEMORY: ClassVar[int] = 100

    count: int = 0
    norm: float = 0.0
    loss: float = 0.0

    def learn(self, norm: float, loss: float) -> None:
        self.count += 1
        rate = max(1 / self.count, 1 / self.MEMORY)
        if self.count > MINIMUM_LOSSES:
            norm = min(norm, 3 * self.norm)
        self.norm += rate * (norm - self.norm)
        self.loss += rate * (loss - self.loss)


class DivergenceMonitor:
    """Watches the steps that are measured, and says what to do.

    The signals, their limits and recoveries are the seed's (Divergence Detection); the severity of a
    deviation is Rust's: caution at 0.7 of the threshold, warning at 1, critical at 2 (inventory 3.7).

    | signal | fires when | level and action |
    | --- | --- | --- |
    | `non_finite` | loss or gradient norm is NaN or infinite | critical, roll back |
    | `loss_deviation` | the loss rule says so (see `trainer.loss_rules`) | warning, force Full |
    | `loss_oscillation` | the loss rule says so | warning, force Full |
    | `gradient_explosion` | norm > 10 x baseline; critical at 100 x | warning, reduce the horizon |
    | `gradient_vanishing` | norm < 0.01 x baseline | warning, more Full steps |
    | `prediction_error` | relative error of the predicted loss > 20 % | caution, force Correct |

    Rule `seed` is literal: the baseline is the mean of the first 50 norms, and three warnings in a row
    become critical. Rule `calibrated` judges the loss only on real steps, from the `grace_steps`-th after a
    jump on, where also a norm must pass 3 times the limit, or the limit twice in a row
    (predictive-training, Divergence monitor mapping). Its baseline moves along, by a factor of 2 at an
    alarm; a gradient that is small because the loss fell tenfold has not vanished but converged; and a
    prediction error is only logged.

    Not safe to share between threads.

    Args:
        threshold: standard deviations of loss that count as divergence, > 0.
        rule: `calibrated` or `seed`.
        gradient_explosion: multiple of the baseline, > 1.
        gradient_vanishing: multiple of the baseline, in (0, 1).
        prediction_error: |predicted - measured| / |measured|, > 0.
        grace_steps: the first real step after a jump whose loss is judged.

    Raises:
        UserError: an unknown rule or a limit out of range.
    """

    def __init__(
        self,
        *,
        threshold: float = 3.0,
        rule: Rule = "calibrated",
        gradient_explosion: float = 10.0,
        gradient_vanishing: float = 0.01,
        prediction_error: float = 0.20,
        grace_steps: int = 3,
    ) -> None:
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
        self.gradient_explosion = gradient_explosion
        self.gradient_vanishing = gradient_vanishing
        self.prediction_error = prediction_error
        self.grace_steps = grace_steps
        self._literal = rule == "seed"
        self._loss = SeedLossRule(threshold) if self._literal else CalibratedLossRule(threshold)
        self._norm = _NormBaseline()
        self._steps_since_jump = 0
        self._real_since_jump = 0
        self._exploded = False
        self._warnings = 0
        self._waiting: list[tuple[int, float, int | None]] = []

    def defer(self, step: int, loss: float, steps_since_jump: int | None) -> None:
        """Take note of the loss of a real step; judged in blocks they cost far less than one by one.

        Args:
            step: logical step, by which `catch_up` names it.
            loss: as for `observe`.
            steps_since_jump: as for `observe`.
        """
        self._waiting.append((step, loss, steps_since_jump))

    def catch_up(
        self, *, confidence: float | None = None, warmup: bool = False
    ) -> list[tuple[int, DivergenceSignal]]:
        """Judge the steps that wait, in their order; return them with what `observe` says of each."""
        waiting, self._waiting = self._waiting, []
        return [
            (
                step,
                self.observe(loss, real=True, steps_since_jump=since, confidence=confidence, warmup=warmup),
            )
            for step, loss, since in waiting
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
        """
        alarms: list[_Alarm] = []
        deviation = math.nan
        real = gradient_norm is not None if real is None else real
        settled = steps_since_jump is None or self._has_settled(steps_since_jump, real)
        if not math.isfinite(loss) or (gradient_norm is not None and not math.isfinite(gradient_norm)):
            alarms.append(_non_finite(loss, gradient_norm))
        else:
            if settled or self._literal:
                reading = self._loss.observe(loss)
                deviation = reading.deviation
                if not warmup and (reading.oscillating or reading.severity >= 0.7):
                    alarms += _loss_alarms(loss, deviation, reading.severity, reading.oscillating)
            if gradient_norm is not None and (
                alarm := self._judge_norm(gradient_norm, loss, settled, warmup)
            ):
                alarms.append(alarm)
            if predicted_loss is not None and not warmup:
                error = abs(predicted_loss - loss) / max(abs(loss), 1e-8)
                if not error <= self.prediction_error:
                    alarms.append(self._prediction_alarm(predicted_loss, loss, error))
        if not alarms:
            self._warnings = 0
            return DivergenceSignal(
                DivergenceLevel.NORMAL, "none", "", Action.CONTINUE, predicted_loss, deviation, confidence
            )
        top = max(alarms)
        level, action = top.level, max(alarm.action for alarm in alarms)
        if self._literal:
            self._warnings = self._warnings + 1 if level == DivergenceLevel.WARNING else 0
            if self._warnings == 3:
                self._warnings = 0
                level, action = DivergenceLevel.CRITICAL, LEVEL_ACTION[DivergenceLevel.CRITICAL]
        return DivergenceSignal(
            level, top.name, top.description, action, predicted_loss, deviation, confidence
        )

    def check_divergence(self, state: TrainingState, loss: float) -> DivergenceSignal:
        """Judge a loss measured at `state` without learning from it (the seed's call; changes nothing)."""
        return deepcopy(self).observe(loss, real=True, confidence=state.confidence)

    def state_dict(self) -> dict[str, Any]:
        """Return what was learned, as plain numbers, lists and dictionaries."""
        return {
            "rule": self.rule,
            "loss": _plain(self._loss),
            "norm": _plain(self._norm),
            **{name: getattr(self, f"_{name}") for name in _COUNTERS},
            "waiting": list(self._waiting),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what a monitor of the same rule had learned; limits stay as they are.

        Raises:
            UserError: the state of a monitor with the other rule.
        """
        if state["rule"] != self.rule:
            raise UserError(
                f"the saved monitor has divergence_rule={state['rule']!r}, this one {self.rule!r}: "
                "resume with the rule that the run began with"
            )
        _restore(self._loss, {**state["loss"], "threshold": self._loss.threshold})
        _restore(self._norm, state["norm"])
        for name in _COUNTERS:
            setattr(self, f"_{name}", state[name])
        self._waiting = [(step, loss, since) for step, loss, since in state["waiting"]]

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

    def _judge_norm(self, norm: float, loss: float, settled: bool, warmup: bool) -> _Alarm | None:
        baseline = self._norm
        reference = baseline.norm
        if baseline.count < MINIMUM_LOSSES:
            baseline.learn(norm, loss)
            return None
        limit = self.gradient_explosion * reference
        above = norm > limit
        again, self._exploded = self._exploded, above
        if above and not warmup and (settled or self._literal or again or norm > 3 * limit):
            if not self._literal:
                baseline.norm *= 2
            level = DivergenceLevel.CRITICAL if norm > 10 * limit else DivergenceLevel.WARNING
            return _Alarm.of(
                "gradient_explosion",
                DivergenceLevel.WARNING,
                Action.REDUCE_RATIO,
                level,
                f"gradient norm {norm:.4g} is {norm / reference:.1f} times its baseline"
                if reference
                else f"gradient norm {norm:.4g} after a baseline of zero",
            )
        if norm < self.gradient_vanishing * reference and not warmup:
            converged = not self._literal and 0 <= loss < 0.1 * baseline.loss
            if not converged:
                if not self._literal:
                    baseline.norm /= 2
                return _Alarm.of(
                    "gradient_vanishing",
                    DivergenceLevel.WARNING,
                    Action.INCREASE_FULL,
                    DivergenceLevel.WARNING,
                    f"gradient norm {norm:.4g} is {norm / reference:.2g} times its baseline",
                )
        if settled and not self._literal:
            baseline.learn(norm, loss)
        return None

    def _prediction_alarm(self, predicted_loss: float, loss: float, error: float) -> _Alarm:
        return _Alarm.of(
            "prediction_error",
            DivergenceLevel.CAUTION,
            Action.FORCE_CORRECT if self._literal else Action.CONTINUE,
            DivergenceLevel.CAUTION,
            f"predicted loss {predicted_loss:.4g} is {error:.0%} off the measured {loss:.4g}",
        )


_COUNTERS: Final = ("steps_since_jump", "real_since_jump", "exploded", "warnings")


def _non_finite(loss: float, gradient_norm: float | None) -> _Alarm:
    culprit = f"gradient norm is {gradient_norm}" if math.isfinite(loss) else f"loss is {loss}"
    return _Alarm(DivergenceLevel.CRITICAL, Action.ROLLBACK, "non_finite", culprit)


def _loss_alarms(loss: float, deviation: float, severity: float, oscillating: bool) -> list[_Alarm]:
    native, proposed = DivergenceLevel.WARNING, Action.FORCE_FULL
    alarms = []
    if severity >= 0.7:
        level = DivergenceLevel(1 + (severity >= 1) + (severity >= 2))
        text = f"loss {loss:.4g} deviates by {deviation:+.1f} sigma"
        alarms.append(_Alarm.of("loss_deviation", native, proposed, level, text))
    if oscillating:
        text = f"loss {loss:.4g} swings up and down"
        alarms.append(_Alarm.of("loss_oscillation", native, proposed, native, text))
    return alarms


def _plain(learned: Any) -> dict[str, Any]:
    values = {f.name: getattr(learned, f.name) for f in fields(learned)}
    return {name: list(value) if isinstance(value, deque) else value for name, value in values.items()}


def _restore(learned: Any, values: dict[str, Any]) -> None:
    for name, value in values.items():
        present = getattr(learned, name)
        setattr(learned, name, deque(value, present.maxlen) if isinstance(present, deque) else value)
