"""Speedup and quality as the contract defines them: pure functions of counts, seconds and losses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import sha256
from math import inf, isfinite

from hybrid_sweep.errors import UserError
from hybrid_sweep.measure.costs import UnitCosts
from hybrid_sweep.measure.reference import Reference, no_ratio_of
from hybrid_sweep.trainer.cost_meter import PlainSteps, Work
from hybrid_sweep.trainer.state import Segment


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


def quality(kind: str, reference: Reference, step: int, loss: float, metric: float | None) -> float:
    """Compare held-out results with the reference; 1 means equal, more is better, 0 where not finite.

    Args:
        kind: "loss_ratio": reference loss / loss; "accuracy_ratio" and "max_ratio": metric / that of the
            reference; "min_ratio": the inverse; "loss_gap": 1 − (loss − reference loss) / (what the reference
            gained in its whole run); "max_gap" and "min_gap": the same of the metric.
        reference: plain training with the same seed and data order.
        step: logical step of the reference to compare with.
        loss: held-out loss.
        metric: the workload's, the accuracy where it names none.
    """
    return compared(
        kind,
        (loss, metric),
        (reference.loss_at(step), reference.metric_at(step)),
        reference.gained(kind),
    )


def compared(
    kind: str, result: tuple[float, float | None], base: tuple[float, float | None], gained: float
) -> float:
    """Compare held-out (loss, metric) with those of another run, as `quality` does with the reference.

    Args:
        kind: as of `quality`.
        result: of the run.
        base: of the one it is compared with; an infinite loss, where that has diverged, gives infinity.
        gained: by how much plain training improves in its whole run, for the gaps.

    Raises:
        UserError: a ratio of a loss, or of a metric to be small, that is not above 0: it has no value.
    """
    loss, metric = result
    base_loss, base_metric = base
    if not isfinite(loss):
        return 0.0
    if not isfinite(base_loss):
        return inf
    if kind.startswith("loss"):
        better, worse = base_loss, loss
    elif metric is None or base_metric is None or not isfinite(metric):
        return 0.0
    else:
        better, worse = (base_metric, metric) if kind.startswith("min") else (metric, base_metric)
    if kind.endswith("gap"):
        return 1 - (worse - better) / gained if gained > 0 else 0.0
    if kind in ("loss_ratio", "min_ratio") and worse <= 0:
        raise UserError(no_ratio_of(worse, "loss" if kind == "loss_ratio" else "metric"))
    if worse <= 0:
        return inf if better > 0 else 0.0
    return max(better / worse, 0.0)


def behaviour(trace: Iterable[Segment]) -> str:
    """Return eight hexadecimal digits that trials with the same phases, lengths and corrections share."""
    return sha256(repr([tuple(segment[:3]) for segment in trace]).encode()).hexdigest()[:8]
