"""What the trainer tells: the result of a step, the state now, and the statistics of a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hybrid_sweep.trainer.divergence.monitor import DivergenceSignal
from hybrid_sweep.trainer.forecast.calibration import ReliabilityBin
from hybrid_sweep.trainer.forecast.confidence import Confidence
from hybrid_sweep.trainer.phases import Phase
from hybrid_sweep.trainer.skill import Interval, Skill
from hybrid_sweep.trainer.state import Segment, Tally, realised_horizons

Signal = Callable[[], DivergenceSignal | None]
"""What the monitor says of a step, once it is asked."""


class TrainingDiverged(RuntimeError):
    """Training produced non-finite values more often than `max_rollbacks` allows."""


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
    def from_tally(
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
