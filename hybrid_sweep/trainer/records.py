"""What the trainer tells: the result of a step, the state now, and the statistics of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, NamedTuple

from torch import Tensor

from hybrid_sweep.trainer.calibration import ReliabilityBin
from hybrid_sweep.trainer.confidence import Confidence
from hybrid_sweep.trainer.divergence import DivergenceSignal
from hybrid_sweep.trainer.phases import Phase
from hybrid_sweep.trainer.plain import PlainStep
from hybrid_sweep.trainer.skill import Interval, Skill

Signal = Callable[[], DivergenceSignal | None]
"""What the monitor says of a step, once it is asked."""


class TrainingDiverged(RuntimeError):
    """Training produced non-finite values more often than `max_rollbacks` allows."""


class Segment(NamedTuple):
    """One phase as it was run: its length in logical steps, its micro-corrections and the steps between."""

    phase: str
    length: int
    corrections: int
    interval: int = 0


class Unread(NamedTuple):
    """A real step whose loss has not been judged.

    Attributes:
        step: logical step.
        loss: a number, or a tensor of one element that still is on its device.
        gradient_norm: the newest that was measured by then.
        gradient: what `GradientWatch.take` returned.
        learning_rate: of the step.
        since_jump: logical steps since the newest jump; None before the first.
    """

    step: int
    loss: Any
    gradient_norm: float
    gradient: Tensor | None
    learning_rate: float
    since_jump: int | None


class StepResult:
    """What one logical step did.

    Attributes:
        step: logical step, 1…N.
        phase: what the step was.
        confidence: in [0, 0.99], as of the last decision.
        gradient_norm: total norm before clipping, measured when first read where it was not yet; None where
            there was no backward pass, or where it is read only after the next step.
        backward_reduction_pct: of the run so far.
        loss_is_predicted: whether `loss` is a prediction and not a measurement.
        signal: the divergence monitor's word; None where nothing was measured, or where it is first read
            more than about twenty steps later.
    """

    __slots__ = (
        "_gradient_norm",
        "_loss",
        "_signal",
        "backward_reduction_pct",
        "confidence",
        "loss_is_predicted",
        "phase",
        "step",
    )

    def __init__(
        self,
        *,
        step: int,
        phase: Phase,
        loss: Any,
        confidence: float,
        gradient_norm: float | Callable[[], float | None] | None,
        backward_reduction_pct: float,
        signal: Signal | None,
    ) -> None:
        self.step = step
        self.phase = phase
        self._loss = loss
        self.loss_is_predicted = callable(loss)
        self.confidence = confidence
        self._gradient_norm = gradient_norm
        self.backward_reduction_pct = backward_reduction_pct
        self._signal = signal

    @property
    def loss(self) -> float:
        """The measured training loss, or in Predict RSSM-lite's, either fetched when first read.

        NaN where a predicted one is first read after the next Full phase, whose learning has replaced it.
        """
        loss = float(self._loss() if callable(self._loss) else self._loss)
        self._loss = loss
        return loss

    @property
    def gradient_norm(self) -> float | None:
        """The total norm of the step's gradient before clipping."""
        if callable(self._gradient_norm):
            self._gradient_norm = self._gradient_norm()
        return self._gradient_norm

    @property
    def signal(self) -> DivergenceSignal | None:
        """What the divergence monitor says of the measured loss."""
        return self._signal() if self._signal else None

    def __str__(self) -> str:
        return (
            f"Step {self.step}: Loss={self.loss:.4f}, Phase={self.phase.value}, "
            f"Backward Reduction={self.backward_reduction_pct:.1f}%"
        )


@dataclass(slots=True)
class Position:
    """Where a run stands: what its newest steps have left behind.

    Attributes:
        loss: newest measured one; None before the first.
        confidence: as of the newest decision.
        gradient_norm: of the newest gradient that was measured.
        real_steps: real steps so far.
        mean_learning_rate: over the averaged updates.
        real_at: logical step of the newest real step.
        jump_at: logical step that the newest jump reached; None before the first.
        correct_losses: measured in the current Correct phase.
        assessed: whether the Full phase that just ended has been learned from, and only the decision is left.
        trusted: what that said of the direction.
        learned: whether it was learned from; one that cannot change what comes mostly is not.
        cycle_at: logical step after which the current cycle began; None between two cycles.
    """

    loss: float | None = None
    confidence: float = 0.0
    gradient_norm: float = 0.0
    real_steps: int = 0
    mean_learning_rate: float = 0.0
    real_at: int = 0
    jump_at: int | None = None
    correct_losses: list[float] = field(default_factory=list)
    assessed: bool = False
    trusted: bool = True
    learned: bool = True
    cycle_at: int | None = None

    def since_jump(self, step: int) -> int | None:
        """Return the logical steps from the newest jump to `step`; None before the first."""
        return None if self.jump_at is None else step - self.jump_at


@dataclass(slots=True, kw_only=True)
class Tally:
    """The books of a run: counts that only ever grow, and the phases as they were run."""

    steps: int = 0
    real_steps: int = 0
    backward_calls: int = 0
    forward_only_calls: int = 0
    loss_sum: float = 0.0
    finite_losses: int = 0
    nonfinite_steps: int = 0
    warning_steps: int = 0
    micro_corrections: int = 0
    aborted_horizons: int = 0
    rollbacks: int = 0
    confidence_sum: float = 0.0
    decisions: int = 0
    max_confidence: float | None = None
    trace: list[Segment] = field(default_factory=list)
    _phase_began: int = 0
    _phase_corrections: int = 0
    _phase_interval: int = 0
    _aborted: bool = False

    @property
    def backward_reduction_pct(self) -> float:
        """100·(1 − real steps / logical steps), whatever number of backward passes a real step takes."""
        return 100 * (1 - self.real_steps / self.steps) if self.steps else 0.0

    def count(self, plain: PlainStep) -> None:
        """Take note of the real steps so far, an oracle's among them, and of their backward passes."""
        self.real_steps, self.backward_calls = plain.steps, plain.backward_calls

    def state_dict(self) -> dict[str, Any]:
        """Return the books."""
        return {name: getattr(self, name) for name in self.__slots__} | {"trace": list(self.trace)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` returned."""
        for name in self.__slots__:
            setattr(self, name, state[name])
        self.trace = [Segment(*segment) for segment in state["trace"]]

    def decide(self, confidence: float) -> None:
        """Count a decision."""
        self.confidence_sum += confidence
        self.decisions += 1

    def offer(self, confidence: float) -> None:
        """Count a decision at which a Predict phase starts if the confidence is high enough."""
        self.max_confidence = max(self.max_confidence or 0.0, confidence)

    def measure(self, loss: float, *gradient_norms: float | None) -> None:
        """Count a measured loss."""
        if isfinite(loss) and all(norm is None or isfinite(norm) for norm in gradient_norms):
            self.loss_sum += loss
            self.finite_losses += 1
        else:
            self.nonfinite_steps += 1

    def micro_correct(self, interval: int) -> None:
        """Count a micro-correction of the current phase, `interval` steps after the one before."""
        self.micro_corrections += 1
        self._phase_corrections += 1
        self._phase_interval = interval

    def abort(self) -> None:
        """Count the current horizon as aborted, once for Predict and its Correct."""
        self.aborted_horizons += not self._aborted
        self._aborted = True

    def segment(self, phase: Phase) -> list[Segment]:
        """Return the current phase so far; nothing while it has no step."""
        length = self.steps - self._phase_began
        corrections, interval = self._phase_corrections, self._phase_interval
        return [Segment(str(phase), length, corrections, interval)] if length else []

    def leave(self, phase: Phase) -> None:
        """Close the books of a phase that ends."""
        self.trace += self.segment(phase)
        self._phase_began = self.steps
        self._phase_corrections = self._phase_interval = 0
        self._aborted = self._aborted and phase is Phase.PREDICT


def realised_horizons(trace: Iterable[Segment]) -> tuple[int, float]:
    """Return how many Predict phases there are, and their mean length in logical steps; 0 without one."""
    lengths = [segment.length for segment in trace if segment.phase == Phase.PREDICT]
    return len(lengths), sum(lengths) / max(len(lengths), 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingStatistics:
    """A run so far.

    Attributes:
        backward_reduction_pct: 100·(1 − real steps / logical steps): what was saved of the backward passes of
            plain training with the same optimizer, also where LBFGS or SAM takes several a step.
        average_loss: mean of the measured training losses.
        quality_score: reference held-out loss / held-out loss, where both were given; else None.
        max_confidence_reached: highest confidence of the decisions at which nothing but a low one kept a
            Predict phase from starting (so not Warmup's, nor where directions disagree, nor near the end);
            None without such a decision.
        mean_confidence: mean confidence over the decisions.
        realised_horizon_mean: mean length of the Predict phases, logical steps; 0 without one.
        abort_rate: share of Predict phases cut short by their guard or taken back.
        warning_rate: logical steps with a warning or worse, as a share of all.
        prediction_accuracy: share of scored loss predictions within 10 %; None without one.
        calibration_error: largest |confidence − share confirmed| over bins with enough points; None without
            one.
        brier: mean squared error of the confidence as a forecast; None without a scored prediction.
        confidence_skill: 1 − brier / that of always forecasting the share confirmed so far, (k + 1)/(n + 2)
            after n predictions, with the 95 % interval that the number of jumps allows (`Skill`).
        forecast_skill: the same of predicted losses against the last smoothed real loss, by relative error
            (`skill.relative_error`).
        reliability: the scored predictions by tenths of confidence.
    """

    steps: int
    backward_calls: int
    forward_only_calls: int
    backward_reduction_pct: float
    average_loss: float
    quality_score: float | None
    max_confidence_reached: float | None
    mean_confidence: float
    predict_phases: int
    realised_horizon_mean: float
    micro_corrections: int
    abort_rate: float
    rollbacks: int
    nonfinite_steps: int
    warning_rate: float
    prediction_accuracy: float | None
    calibration_error: float | None
    brier: float | None
    confidence_skill: Interval
    forecast_skill: Interval
    reliability: list[ReliabilityBin]

    @classmethod
    def of(
        cls,
        tally: Tally,
        trace: list[Segment],
        confidence: Confidence,
        forecast_skill: Skill,
        reference_loss: float | None,
        held_out_loss: float | None,
    ) -> TrainingStatistics:
        """Work the statistics out of a run's counts."""
        predict_phases, realised_horizon_mean = realised_horizons(trace)
        quality = reference_loss / held_out_loss if reference_loss and held_out_loss else None
        return cls(
            steps=tally.steps,
            backward_calls=tally.backward_calls,
            forward_only_calls=tally.forward_only_calls,
            backward_reduction_pct=tally.backward_reduction_pct,
            average_loss=tally.loss_sum / max(tally.finite_losses, 1),
            quality_score=quality,
            max_confidence_reached=tally.max_confidence,
            mean_confidence=tally.confidence_sum / max(tally.decisions, 1),
            predict_phases=predict_phases,
            realised_horizon_mean=realised_horizon_mean,
            micro_corrections=tally.micro_corrections,
            abort_rate=tally.aborted_horizons / max(predict_phases, 1),
            rollbacks=tally.rollbacks,
            nonfinite_steps=tally.nonfinite_steps,
            warning_rate=tally.warning_steps / max(tally.steps, 1),
            prediction_accuracy=confidence.prediction_accuracy,
            calibration_error=confidence.calibration_error(),
            brier=confidence.brier,
            confidence_skill=confidence.skill.interval(),
            forecast_skill=forecast_skill.interval(),
            reliability=confidence.reliability,
        )
