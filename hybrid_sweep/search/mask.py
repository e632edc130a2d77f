"""The mask of a space: points that are known to be unstable, refused before they cost anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hybrid_sweep.errors import UserError
from hybrid_sweep.search.sampler import SamplerStudy
from hybrid_sweep.search.space import config_of
from hybrid_sweep.spec.axes import values_of
from hybrid_sweep.spec.sweep import Mask, SweepSpec
from hybrid_sweep.trainer.config import HybridConfig
from hybrid_sweep.trainer.forecast.confidence import CEILING
from hybrid_sweep.trainer.phases import compute_predict_steps
from hybrid_sweep.trainer.stability import BOUNDED, is_stable

WORST_CASE = 1.5
"""ηλ_max where it was not measured."""
FLATTEST, STEEPEST = 1e-3, 1.95
"""Least and greatest ηλ_max that a measured one counts as: at 2 no run would train."""
MASK_DRAWS = 1000
"""Points of a space that are looked at for one that is not masked."""


def unstable(mask: Mask | None, config: Mapping[str, Any]) -> bool:
    """Return whether the longest jump of a configuration is one that no run of real steps makes good.

    The horizon is that of the highest confidence, times the smallest gate that `mask` expects, against the
    bound of the predictor (`trainer/stability.py`); predictors without a bound are never masked. With
    cycle mode "chained" jumps may follow each other: only one is counted, for confidence decides how many.

    Args:
        mask: what is expected of the workload; None masks nothing.
        config: fields of `HybridConfig`.
    """
    settings = HybridConfig(**config)
    if mask is None or settings.predictor not in BOUNDED:
        return False
    horizon = settings.max_predict_steps
    if settings.horizon_rule == "original":
        horizon = compute_predict_steps(horizon, CEILING, 0)
    gate = 1.0 if settings.gates == "off" else mask.learned_gate
    return not is_stable(
        settings.predictor,
        settings.velocity_decay,
        settings.full_steps,
        gate * horizon,
        mask.eta_lambda or WORST_CASE,
    )


def wants_curvature(spec: SweepSpec) -> bool:
    """Return whether ηλ_max is to be measured: some point may be masked, and the sweep does not say it.

    Nothing is masked of a grid, of points that are given, and of predictors without a bound.
    """
    axis = spec.space.get("predictor")
    values = [spec.trainer.get("predictor", "ema")] if axis is None else values_of(axis)
    bounded = values is None or not set(values).isdisjoint(BOUNDED)
    return (
        spec.mask is not None
        and spec.mask.eta_lambda is None
        and spec.sampler != "grid"
        and bool(spec.space)
        and bounded
    )


def with_curvature(spec: SweepSpec, measured: Sequence[float], why_not: str = "") -> tuple[SweepSpec, str]:
    """Return the sweep with the ηλ_max that its mask shall take, and a sentence that says it.

    Args:
        spec: one that `wants_curvature`.
        measured: ηλ_max at some steps of plain training; none where it could not be measured.
        why_not: why it could not.
    """
    mask = spec.mask or Mask.model_validate({})
    if not measured:
        said = (
            f"η·λ_max cannot be measured ({why_not}): the mask takes the worst case, {WORST_CASE:g}; "
            "mask.eta_lambda sets another"
        )
        used = WORST_CASE
    else:
        largest = max(measured)
        used = round(min(max(largest, FLATTEST), STEEPEST), 4)
        said = f"η·λ_max along plain training is {largest:.3g} (2 is the edge of stability)"
        said += ", which the mask takes" if FLATTEST <= largest <= STEEPEST else f"; the mask takes {used:g}"
    return spec.model_copy(update={"mask": mask.model_copy(update={"eta_lambda": used})}), said


def validate_mask(spec: SweepSpec) -> None:
    """Refuse a sweep whose sampler would find nothing to try; a grid is never masked.

    Raises:
        UserError: every point that was looked at is unstable.
    """
    if spec.mask is None or spec.sampler == "grid":
        return
    memory = SamplerStudy(spec, spec.name)
    for look in range(MASK_DRAWS):
        drawn = memory.draw(look, at_random=True)
        if not unstable(spec.mask, config_of({**spec.trainer, **drawn})):
            return
    raise UserError(
        "every point of the space is masked as unstable, for the jumps are too long for the Full phases: "
        "lower max_predict_steps, raise full_steps or velocity_decay, or write `mask: null` to try them"
    )
