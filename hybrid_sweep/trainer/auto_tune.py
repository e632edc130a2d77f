"""How low the confidence threshold may be: the search of `HybridTrainer.auto_tune_confidence`."""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite

from hybrid_sweep.errors import UserError

START = 0.85
STEP = 0.05


def lowest_passing(quality: Callable[[float], float], target_quality: float) -> float | None:
    """Return the last threshold of 0.85, 0.80 … 0.05 before the first whose quality misses the target.

    None where 0.85 misses already. Each threshold is tried at most once; the original's loop would end on an
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
