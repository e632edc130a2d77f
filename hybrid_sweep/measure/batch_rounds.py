"""Pack: runs that a worker trains together, each at its own step, one fused gradient for all real steps."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

from torch import Tensor

from hybrid_sweep.measure.hybrid_run import HybridRun
from hybrid_sweep.trainer.fused import FusedStep
from hybrid_sweep.trainer.train_step import PendingStep, StepGenerator, TrainStep

K = TypeVar("K", bound=Hashable)
R = TypeVar("R")


class Pack(Generic[K, R]):
    """Drives training of up to `size` runs, in rounds.

    What a run does by itself (jumps, probes, Correct, decisions, evaluation) it does alone until its next
    real step is due; then a round takes the real steps of all of them at once. A run has its own phase, step
    counter and batches, so runs may begin and end at any time.

    Args:
        size: the most runs at a time.

    Attributes:
        fused: what takes the real steps.
    """

    def __init__(self, size: int) -> None:
        self.fused = FusedStep(size)
        self._due: dict[K, tuple[StepGenerator[R], PendingStep]] = {}
        self._ended: list[tuple[K, R]] = []
        self._plain: dict[K, TrainStep] = {}

    @property
    def waiting(self) -> bool:
        """Whether anything is left that `advance` would return or go on with."""
        return bool(self._due or self._ended)

    def begin(self, key: K, steps: StepGenerator[R]) -> None:
        """Go on with a run; `advance` returns what `steps` does when it ends."""
        self._go_on(key, steps, None)

    def leave(self, key: K) -> None:
        """Let a run go that is over, or that goes on elsewhere."""
        self._due.pop(key, None)
        if (plain := self._plain.pop(key, None)) is not None:
            self.fused.leave(plain)

    def advance(self) -> list[tuple[K, R]]:
        """Take one real step of every run; return what ended."""
        due, self._due = self._due, {}
        taken = self.fused([real for _, real in due.values()])
        for key, (steps, real) in due.items():
            self._go_on(key, steps, taken[real.plain])
        ended, self._ended = self._ended, []
        return ended

    def _go_on(self, key: K, steps: StepGenerator[R], loss: Tensor | float | Exception | None) -> None:
        try:
            real = steps.throw(loss) if isinstance(loss, Exception) else steps.send(loss)
        except StopIteration as end:
            self._ended.append((key, end.value))
            return
        if self._plain.get(key) is not real.plain:
            self.leave(key)
            self._plain[key] = real.plain
        self._due[key] = steps, real


def train_together(trials: Iterable[HybridRun], size: int) -> None:
    """Train every trial to its end, up to `size` of them at a time."""
    pack: Pack[HybridRun, object] = Pack(size)
    left, running = iter(trials), 0
    while True:
        while running < size and (trial := next(left, None)) is not None:
            pack.begin(trial, trial.iter_report())
            running += 1
        if not running:
            return
        for trial, _ in pack.advance():
            if trial.done:
                pack.leave(trial)
                running -= 1
            else:
                pack.begin(trial, trial.iter_report())
