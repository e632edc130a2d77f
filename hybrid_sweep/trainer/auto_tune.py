"""auto_tune_confidence: how low the confidence threshold may be while the held-out loss stays good enough."""

from __future__ import annotations

from collections.abc import Callable
from math import inf, isfinite
from typing import TYPE_CHECKING

from torch import nn

from hybrid_sweep.errors import UserError
from hybrid_sweep.trainer.confidence import SHUT
from hybrid_sweep.trainer.phases import Phase
from hybrid_sweep.trainer.plain import Batches, as_loader
from hybrid_sweep.trainer.records import TrainingDiverged

if TYPE_CHECKING:
    from hybrid_sweep.trainer.trainer import HybridTrainer

START = 0.85
STEP = 0.05


def auto_tune_confidence(
    trainer: HybridTrainer,
    batches: Batches,
    evaluate: Callable[[nn.Module], float],
    *,
    target_quality: float = 0.98,
    steps: int = 100,
) -> float | None:
    """Return the lowest `confidence_threshold` that keeps quality over the next `steps` steps.

    From 0.85 down in steps of 0.05 (seed, Adaptive Threshold Tuning) each threshold trains `steps` logical
    steps from here, and so does plain training; quality is the ratio of their held-out losses. Afterwards
    everything is as it was, the trainer's own threshold too: start a run with the one that was found.

    Args:
        trainer: after its Warmup.
        batches: as for `HybridTrainer.run`; an iterable that cannot be started anew is used up.
        evaluate: the held-out loss of a model, positive.
        target_quality: at least this passes.
        steps: logical steps of each attempt; two cycles or more show what jumps do.

    Returns:
        The last threshold that passed; None where 0.85 does not.

    Raises:
        UserError: Warmup is not over, so that nothing would be predicted; or a loss that is not positive.
    """
    if trainer.controller.phase is Phase.WARMUP and trainer.controller.remaining:
        raise UserError("auto_tune_confidence needs a trainer after its Warmup: run warmup_steps first")
    load = as_loader(batches)

    def loss_at(threshold: float) -> float:
        config = trainer.config.replace(confidence_threshold=threshold, stop_fraction=0.0)
        with trainer.rehearsal(config):
            try:
                trainer.run(load, trainer.tally.steps + steps)
            except TrainingDiverged:
                return inf
            return evaluate(trainer.model)

    plain_loss = loss_at(SHUT)
    return lowest_passing(lambda threshold: loss_quality(plain_loss, loss_at(threshold)), target_quality)


def lowest_passing(quality: Callable[[float], float], target_quality: float) -> float | None:
    """Return the last threshold of 0.85, 0.80 … 0.05 before the first whose quality misses the target.

    None where 0.85 misses already. Each threshold is tried at most once; the seed's loop would end on an
    untried 0.90 there, and never end where every threshold passes.

    Args:
        quality: of a threshold; one that is not finite misses.
        target_quality: at least this passes.
    """
    passed = None
    for i in range(round(START / STEP)):
        threshold = round(START - i * STEP, 2)
        reached = quality(threshold)
        if not (isfinite(reached) and reached >= target_quality):
            break
        passed = threshold
    return passed


def loss_quality(plain_loss: float, loss: float) -> float:
    """Return plain training's held-out loss / the held-out loss, 0 where the latter is not finite.

    Raises:
        UserError: plain training's loss is not positive, so that no ratio says which is better.
    """
    if not (isfinite(plain_loss) and plain_loss > 0):
        raise UserError(
            f"the held-out loss of plain training is {plain_loss}: auto_tune_confidence compares losses by "
            "their ratio, so evaluate must return a positive one"
        )
    return plain_loss / loss if isfinite(loss) and loss > 0 else 0.0
