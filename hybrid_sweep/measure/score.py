"""Speedup and quality as the contract defines them: pure functions of counts, seconds and losses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import sha256
from math import inf, isfinite

from hybrid_sweep.errors import UserError
from hybrid_sweep.measure.costs import UnitCosts
from hybrid_sweep.measure.reference import Reference, no_ratio_of
from hybrid_sweep.trainer.costs import PlainSteps, Work
from hybrid_sweep.trainer.records import Segment


def speedup(steps: int, plain: PlainSteps, total: float) -> float:
    """Return the time of N plain steps / all training time, all of it measured within the run.

    N plain steps cost what the run's own plain steps cost, plus their mean for each other step, so that what
    happens once counts once on both sides. A plain step includes the loading of its batch.

    Args:
        steps: logical steps so far.
        plain: its plain steps.
        total: seconds of all its work, on the same clock.
    """
    if total <= 0 or not plain.taken:
        return 0.0
    return (plain.seconds + (steps - plain.taken) * plain.mean) / total


def speedup_counted(steps: int, calls: Mapping[Work, int], costs: UnitCosts) -> float:
    """Return N · plain step / cost of the counted work, at frozen unit costs: deterministic."""
    return steps * costs.real_step / costs.total(calls)


def speedup_bound(
    steps: int, backward_calls: int, forward_only_calls: int, step_seconds: float, forward_seconds: float
) -> float:
    """Return N·s / (n_backward·s + n_forward_only·f): what these passes alone would allow.

    s and f are seconds of a plain step and of a forward pass, each with the loading of its batch.
    """
    return steps * step_seconds / (backward_calls * step_seconds + forward_only_calls * forward_seconds)


def overhead_pct(seconds: Mapping[Work, float]) -> float:
    """Return the predictor's own work as a share of all training time, in percent."""
    own = (Work.OBSERVE, Work.UPDATE, Work.CHECKPOINT, Work.JUMP, Work.SCORE)
    return 100 * sum(seconds[kind] for kind in own) / sum(seconds.values())


def quality(kind: str, reference: Reference, step: int, loss: float, accuracy: float | None) -> float:
    """Compare held-out results with the reference; 1 means equal, more is better, 0 where not finite.

    Args:
        kind: "loss_ratio": reference loss / loss; "accuracy_ratio": accuracy / reference accuracy;
            "loss_gap": 1 − (loss − reference loss) / (what the reference gained in its whole run).
        reference: plain training with the same seed and data order.
        step: logical step of the reference to compare with.
        loss: held-out loss.
        accuracy: held-out accuracy, where the workload has one.
    """
    return compared(
        kind,
        (loss, accuracy),
        (reference.loss_at(step), reference.accuracy_at(step)),
        reference.gained,
    )


def compared(
    kind: str, result: tuple[float, float | None], base: tuple[float, float | None], gained: float
) -> float:
    """Compare held-out (loss, accuracy) with those of another run, as `quality` does with the reference.

    Args:
        kind: as of `quality`.
        result: of the run.
        base: of the one it is compared with; an infinite loss, where that has diverged, gives infinity.
        gained: by how much the loss of plain training falls in its whole run, for "loss_gap".

    Raises:
        UserError: a "loss_ratio" of a loss that is not above 0, which has no value.
    """
    loss, accuracy = result
    base_loss, base_accuracy = base
    if not isfinite(loss):
        return 0.0
    if not isfinite(base_loss):
        return inf
    if kind == "accuracy_ratio":
        return (accuracy or 0.0) / base_accuracy if base_accuracy else inf if accuracy else 0.0
    if kind == "loss_gap":
        return 1 - (loss - base_loss) / gained if gained > 0 else 0.0
    if loss <= 0:
        raise UserError(no_ratio_of(loss))
    return max(base_loss / loss, 0.0)


def behaviour(trace: Iterable[Segment]) -> str:
    """Return eight hexadecimal digits that trials with the same phases, lengths and corrections share."""
    return sha256(repr([tuple(segment[:3]) for segment in trace]).encode()).hexdigest()[:8]
