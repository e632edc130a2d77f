"""The four phases and the controller that decides which comes next: no tensors, no clock."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import StrEnum
from math import inf
from typing import Any, NamedTuple

from hybrid_sweep.trainer.config import HybridConfig

MAX_CONSECUTIVE_PREDICTS = 5
"""Predict phases in a row that `cycle_mode="chained"` allows (Rust library, phases.rs)."""
HORIZON_FLOOR = 10
"""Shortest useful horizon, unless `max_predict_steps` itself is smaller (original, Adaptive horizon)."""
FULL_STEPS_GROWTH = 4
"""A Full phase grows to at most this multiple of `full_steps` when gradients vanish."""


class Phase(StrEnum):
    """What a logical step does, by Python's names and by the original's."""

    WARMUP = Warmup = "warmup"
    FULL = Full = "full"
    PREDICT = Predict = "predict"
    CORRECT = Correct = "correct"

    @property
    def is_real(self) -> bool:
        """Whether a step of this phase runs forward, backward and the optimizer."""
        return self in (Phase.WARMUP, Phase.FULL)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingState:
    """Where a run stands; a read-only copy."""

    step: int
    phase: Phase
    steps_in_current_phase: int
    loss: float | None
    confidence: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseDecision:
    """The phase that comes next, its length in logical steps, and why."""

    phase: Phase
    steps: int
    reason: str


def _f32(value: float) -> float:
    """Round to single precision, as the original's formula is evaluated."""
    return float(struct.unpack("f", struct.pack("f", value))[0])


def compute_predict_steps(max_steps: int, confidence: float, consecutive: int) -> int:
    """Return the adaptive horizon: H shrunk by confidence² and by repeated prediction.

    a = ⌊H·c²⌋, p = 1 − min(0.1·n, 0.5), result = min(max(⌊a·p⌋, 10), H), in single precision
    (original, Adaptive Prediction Horizon).

    Args:
        max_steps: H, logical steps.
        confidence: c in [0, 1].
        consecutive: n, Predict phases since the last Full phase.
    """
    squared = _f32(_f32(confidence) * _f32(confidence))
    adaptive = int(_f32(max_steps * squared))
    penalty = _f32(1.0 - min(_f32(_f32(0.1) * consecutive), 0.5))
    return min(max(int(_f32(adaptive * penalty)), HORIZON_FLOOR), max_steps)


def tail_begin(total_steps: int, fraction: float) -> int:
    """Return the step after which the last `fraction` of a run begins."""
    return int(total_steps * (1 - fraction))


class PhaseController:
    """State machine Warmup → Full → Predict → Correct → Full …, one logical step at a time.

    `decide` is pure: asking what comes next changes nothing. `enter` starts the phase that was decided,
    `advance` counts one of its steps; a phase is over when `remaining` is 0.

    Args:
        config: phase lengths, threshold, cycle mode and horizon rule.
        total_steps: N, logical steps of the run where known; no horizon reaches into the last
            `stop_fraction` of it.
    """

    def __init__(self, config: HybridConfig, total_steps: int | None = None) -> None:
        self.config = config
        self.total_steps = total_steps
        self.phase = Phase.WARMUP
        self.remaining = config.warmup_steps
        self.steps_in_current_phase = 0
        self.consecutive_predicts = 0
        self.horizon_multiplier = 1.0
        self.full_steps = config.full_steps

    def decide(self, step: int, confidence: float, *, trusted: bool = True) -> PhaseDecision:
        """Return what follows the current phase, without changing anything.

        Args:
            step: logical steps done so far.
            confidence: in [0, 1].
            trusted: False where a veto (velocities that disagree, no direction yet) forbids a jump.
        """
        if self.remaining > 0:
            return PhaseDecision(phase=self.phase, steps=self.remaining, reason="the phase goes on")
        match self.phase:
            case Phase.WARMUP:
                return self._full("warmup is over")
            case Phase.PREDICT if self.config.correct_steps > 0:
                steps = self.config.correct_steps
                return PhaseDecision(phase=Phase.CORRECT, steps=steps, reason="the horizon is reached")
            case Phase.FULL:
                return self._predict_or_full(step, confidence, trusted)
            case _:
                if self.config.cycle_mode == "original":
                    return self._full("a cycle is over")
                return self._predict_or_full(step, confidence, trusted)

    def could_predict(self, step: int, *, trusted: bool = True) -> bool:
        """Return whether confidence alone decides if a Predict phase follows: nothing else forbids it.

        Whatever the horizon: ten steps of it must fit into the run.

        Args:
            step: logical steps done so far.
            trusted: False where a veto forbids a jump.
        """
        ends = Phase.CORRECT if self.config.correct_steps else Phase.PREDICT
        asked = self.phase is Phase.FULL or (self.config.cycle_mode == "chained" and self.phase is ends)
        repeats = self.consecutive_predicts >= MAX_CONSECUTIVE_PREDICTS
        return asked and trusted and not repeats and self._room(step) >= HORIZON_FLOOR

    def select_next_phase(self, state: TrainingState) -> PhaseDecision:
        """Return what would follow, by the original's name for `decide`; `steps` is the actual horizon."""
        return self.decide(state.step, state.confidence)

    def horizon(self, step: int, confidence: float) -> int:
        """Return the length of a Predict phase that would start after `step`; 0 where none fits."""
        limit = self.config.max_predict_steps
        if self.config.horizon_rule == "original":
            limit = compute_predict_steps(limit, confidence, self.consecutive_predicts)
        steps = max(int(limit * self.horizon_multiplier), 1)
        room = self._room(step)
        return int(min(steps, room)) if room >= min(HORIZON_FLOOR, steps) else 0

    def _room(self, step: int) -> float:
        """Return the logical steps from `step` to those that are never predicted."""
        if self.total_steps is None:
            return inf
        return tail_begin(self.total_steps, self.config.stop_fraction) - step

    def in_tail(self, step: int) -> bool:
        """Whether `step` is one of those, at the end of a run, that are never predicted."""
        fraction = self.config.stop_fraction
        return self.total_steps is not None and step > tail_begin(self.total_steps, fraction)

    def enter(self, decision: PhaseDecision) -> None:
        """Start the decided phase; the step counter of the phase resets."""
        if decision.phase is Phase.PREDICT:
            self.consecutive_predicts += 1
        elif decision.phase is Phase.FULL:
            self.consecutive_predicts = 0
        self.phase = decision.phase
        self.remaining = decision.steps
        self.steps_in_current_phase = 0

    def advance(self, steps: int = 1) -> None:
        """Count `steps` logical steps of the current phase."""
        self.steps_in_current_phase += steps
        self.remaining -= steps

    def end_phase(self) -> None:
        """End the current phase early (a probe that failed its guard)."""
        self.remaining = 0

    def force_phase(self, phase: Phase, steps: int) -> None:
        """Run `phase` for the next `steps` logical steps, whatever the confidence; then normal control."""
        self.enter(PhaseDecision(phase=phase, steps=steps, reason="forced"))

    def reduce_horizon(self) -> None:
        """Halve the horizon multiplier (gradient explosion)."""
        self.horizon_multiplier = max(self.horizon_multiplier / 2, 1 / 16)

    def restore_horizon(self) -> None:
        """Let the horizon grow back by a quarter after a cycle without an alarm."""
        self.horizon_multiplier = min(self.horizon_multiplier * 1.25, 1.0)

    def grow_full_steps(self) -> None:
        """Lengthen Full phases by half (gradient vanishing), at most fourfold."""
        self.full_steps = min(self.full_steps * 3 // 2 + 1, FULL_STEPS_GROWTH * self.config.full_steps)

    def state_dict(self) -> dict[str, Any]:
        """Return the controller's whole state as plain data."""
        return {k: v for k, v in vars(self).items() if k not in ("config", "total_steps")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        vars(self).update(state)
        self.phase = Phase(self.phase)

    def _full(self, reason: str) -> PhaseDecision:
        return PhaseDecision(phase=Phase.FULL, steps=self.full_steps, reason=reason)

    def _predict_or_full(self, step: int, confidence: float, trusted: bool) -> PhaseDecision:
        if confidence < self.config.confidence_threshold:
            return self._full(f"confidence {confidence:.2f} is below {self.config.confidence_threshold}")
        if not trusted:
            return self._full("the direction is not trusted")
        if self.consecutive_predicts >= MAX_CONSECUTIVE_PREDICTS:
            return self._full(f"{MAX_CONSECUTIVE_PREDICTS} Predict phases in a row")
        steps = self.horizon(step, confidence)
        if steps == 0:
            return self._full("the end of the run is near")
        return PhaseDecision(phase=Phase.PREDICT, steps=steps, reason=f"confidence {confidence:.2f}")


class DecisionPoint(NamedTuple):
    """A point of a run where its next phase is decided: whatever decides that beside the settings.

    Attributes:
        controller: `PhaseController.state_dict`.
        total_steps: N, logical steps of the run.
        step: logical steps done.
        confidence: in [0, 1].
        trusted: False where a veto forbids a jump.
    """

    controller: dict[str, Any]
    total_steps: int | None
    step: int
    confidence: float
    trusted: bool

    def next_phase(self, config: HybridConfig) -> tuple[str, int, int]:
        """Return what would come if `config` had its horizon, interval and threshold.

        Phase, logical steps, and steps between two probes (0 without one): where two configurations agree in
        these, the same happens until the next decision.
        """
        controller = PhaseController(config, self.total_steps)
        controller.load_state_dict(self.controller)
        decision = controller.decide(self.step, self.confidence, trusted=self.trusted)
        interval = config.correction_interval
        probed = decision.phase is Phase.PREDICT and interval <= decision.steps
        return str(decision.phase), decision.steps, interval if probed else 0
