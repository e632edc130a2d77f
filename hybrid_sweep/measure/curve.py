"""Curve: held-out loss along one training run, against steps, backward passes and seconds."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import exp, inf, isfinite, log


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """Held-out results of one training run.

    Attributes:
        steps: logical steps at which it was evaluated, increasing.
        backward_calls: backward passes up to each of them.
        seconds: wall-clock seconds of training up to each of them, batch loading included and evaluation
            not (on CUDA: of the device's time line).
        val_loss: on the validation split; infinite from where the run has diverged, which ends it.
        val_metric: the workload's metric on the same split, where `evaluate` gives it.
        passes: backward passes of a real step, on the average of the run: more than one of LBFGS or SAM.
        test: results on the test split at the end; {} unless asked for.
    """

    steps: list[int]
    backward_calls: list[int]
    seconds: list[float]
    val_loss: list[float]
    val_metric: list[float] | None = None
    passes: float = 1.0
    test: dict[str, float] = field(default_factory=dict)

    @property
    def real_steps(self) -> int:
        """Real steps of the whole run."""
        return round(self.backward_calls[-1] / self.passes)

    def seconds_to(self, loss: float) -> float:
        """Return the training seconds at which validation loss first reaches `loss`; inf where it never does.

        Between evaluations it is interpolated in log loss (linearly where it is not > 0).
        """
        return first_at(self.val_loss, loss, self.seconds)

    def backward_calls_to(self, loss: float) -> float:
        """Return the same in backward passes, which no busy machine changes."""
        return first_at(self.val_loss, loss, self.backward_calls)


def first_at(losses: Sequence[float], loss: float, along: Sequence[float]) -> float:
    """Return the value of `along`, one a loss, at which `losses` first reach `loss`; inf where they never do.

    Between two of them it is interpolated in log loss (linearly where it is not > 0).
    """
    for i, right in enumerate(losses):
        if right > loss:
            continue
        left = losses[i - 1] if i else inf
        if not isfinite(left):
            return along[i]
        in_log = min(right, loss) > 0
        high, at, low = (log(value) if in_log else value for value in (left, loss, right))
        share = (high - at) / (high - low)
        return along[i - 1] + share * (along[i] - along[i - 1])
    return inf


def interpolate(at: Sequence[int], values: Sequence[float], step: int, in_log: bool = False) -> float:
    """Return the value at `step` between those of `values` at the increasing steps `at`."""
    right = min(bisect_left(at, step), len(at) - 1)
    if at[right] <= step or right == 0:
        return values[right]
    share = (step - at[right - 1]) / (at[right] - at[right - 1])
    low, high = values[right - 1], values[right]
    if in_log:
        return exp((1 - share) * log(low) + share * log(high))
    return (1 - share) * low + share * high


def gained(kind: str, val_loss: Sequence[float], val_metric: Sequence[float] | None) -> float:
    """Return by how much a run improves what its quality is about, from its first evaluation to its last.

    Args:
        kind: as of `score.quality`.
        val_loss: held-out losses along the run.
        val_metric: the metric at the same steps.
    """
    values = val_loss if kind.startswith("loss") or val_metric is None else val_metric
    change = values[-1] - values[0]
    return change if kind.startswith("max") else -change
