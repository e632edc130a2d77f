"""The mask of a space: points that are known to be unstable, refused before they cost anything."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hybrid_sweep.errors import UserError
from hybrid_sweep.search.sampler import Memory
from hybrid_sweep.search.space import config_of
from hybrid_sweep.spec import Mask, SweepSpec
from hybrid_sweep.trainer.confidence import CEILING
from hybrid_sweep.trainer.config import HybridConfig
from hybrid_sweep.trainer.phases import compute_predict_steps
from hybrid_sweep.trainer.stability import BOUNDED, is_stable

LOOKS = 1000
"""Points of a space that are looked at for one that is not masked."""


def unstable(mask: Mask | None, config: Mapping[str, Any]) -> bool:
    """Return whether the longest jump of a configuration is one that no run of real steps makes good.

    The horizon is that of the highest confidence, times the smallest gate that `mask` expects, against the
    bound of the predictor (`trainer/stability.py`); predictors without a bound are never masked. With
    cycle mode "rust" jumps may follow each other: only one is counted, for confidence decides how many.

    Args:
        mask: what is expected of the workload; None masks nothing.
        config: fields of `HybridConfig`.
    """
    settings = HybridConfig(**config)
    if mask is None or settings.predictor not in BOUNDED:
        return False
    horizon = settings.max_predict_steps
    if settings.horizon_rule == "seed":
        horizon = compute_predict_steps(horizon, CEILING, 0)
    gate = 1.0 if settings.gates == "off" else mask.learned_gate
    return not is_stable(
        settings.predictor, settings.velocity_decay, settings.full_steps, gate * horizon, mask.eta_lambda
    )


def refuse_masked_space(spec: SweepSpec) -> None:
    """Refuse a sweep whose sampler would find nothing to try; a grid is never masked.

    Raises:
        UserError: every point that was looked at is unstable.
    """
    if spec.mask is None or spec.sampler == "grid":
        return
    memory = Memory(spec, spec.name)
    for look in range(LOOKS):
        drawn = memory.draw(look, at_random=True)
        if not unstable(spec.mask, config_of({**spec.trainer, **drawn})):
            return
    raise UserError(
        "every point of the space is masked as unstable, for the jumps are too long for the Full phases: "
        "lower max_predict_steps, raise full_steps or velocity_decay, or write `mask: null` to try them"
    )
