"""What the gates of the last jump ought to have been, from the real steps that followed it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from hybrid_sweep.trainer.predictors import Realised

OVERSHOOT = 1.75
"""How far past the point of zero slope along the direction a jump should land, in slopes before it."""
STEEPEST = 0.75
"""Slopes above this count as this."""
RISE = 0.3
"""Share of the way up that a gate goes in one cycle; down it goes at once."""
LIMIT = 3.0
"""Largest factor of a group's displacement."""


class GateTargets(NamedTuple):
    """Targets of the weight-delta head: size and groups in [0, 3]."""

    size: float
    groups: tuple[float, ...]


def gate_targets(used: Sequence[float], realised: Realised) -> GateTargets:
    """Return the gates that would have put the last jump at the wanted slope, group by group.

    Along the direction the slope of the loss falls linearly with the distance on a quadratic: 1 (in units of
    the proposed step) before a jump, a*_g after one with gate u_g. The gate that lands at slope −OVERSHOOT is
    u_g (1 + OVERSHOOT) / (1 − a*_g). Landing short of the valley (the literal target a*_g) starves slow
    modes, and the real steps that follow damp the fast ones; measured in benchmarks/ablations.py.

    Args:
        used: size × group gate that the jump had, for each group.
        realised: what the next Full phase showed.
    """
    aims = [u * (1 + OVERSHOOT) / (1 - min(a, STEEPEST)) for u, a in zip(used, realised.ratios, strict=True)]
    steps = [aim if aim < u else u + RISE * (aim - u) for u, aim in zip(used, aims, strict=True)]
    wanted = [min(step, LIMIT) for step in steps]
    return _split(wanted, realised.weights if any(realised.weights) else (1.0,) * len(wanted))


def literal_targets(realised: Realised) -> GateTargets:
    """Return the realised gates themselves, a*_g in [0, 3] (docs/design-notes.md, Formulas), with size 1."""
    ratios = (min(max(ratio, 0.0), LIMIT) for ratio in realised.ratios)
    return GateTargets(1.0, tuple(ratios))


def _split(wanted: Sequence[float], weights: Sequence[float]) -> GateTargets:
    """Divide the wanted factors into their mean and what each group has on top of it.

    The mean is weighted by the direction's squared length in each group: in one that hardly moves (a bias
    before BatchNorm, whose gradient is rounding error) what is wanted is noise, and must not scale the rest.
    """
    size = sum(w * want for w, want in zip(weights, wanted, strict=True)) / sum(weights)
    groups = tuple(min(max(want / size, 0.0), LIMIT) if size > 0 else 1.0 for want in wanted)
    return GateTargets(max(size, 0.0), groups)
