"""The state of a hybrid run between two steps."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, NamedTuple

from torch import Tensor

from hybrid_sweep.trainer.phases import Phase
from hybrid_sweep.trainer.train_step import TrainStep


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

    def count(self, plain: TrainStep) -> None:
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
