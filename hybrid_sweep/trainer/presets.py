"""Presets: configurations by name, by size of the model and by level of its loss."""

from __future__ import annotations

from typing import Any

from hybrid_sweep.errors import unknown_name
from hybrid_sweep.trainer.config import HybridConfig


def _config(warmup: int, full: int, horizon: int, interval: int, threshold: float, sigma: float = 3.0) -> Any:
    return HybridConfig(
        warmup_steps=warmup,
        full_steps=full,
        max_predict_steps=horizon,
        correction_interval=interval,
        confidence_threshold=threshold,
        divergence_threshold=sigma,
    )


PRESETS: dict[str, HybridConfig] = {
    # Complete presets of the seed, "When to Use Aggressive vs Conservative Configs".
    "conservative": _config(200, 30, 50, 10, 0.85, 2.5),
    "balanced": _config(100, 20, 75, 15, 0.60, 3.0),
    "aggressive": _config(50, 10, 150, 25, 0.40, 4.0),
    "seed_optimal": _config(100, 20, 75, 15, 0.60, 2.2),
    # "How to Adjust Confidence Threshold": only these fields are given there.
    "conservative_threshold_only": HybridConfig(confidence_threshold=0.85, max_predict_steps=50),
    "balanced_threshold_only": HybridConfig(
        confidence_threshold=0.60, max_predict_steps=75, correction_interval=15
    ),
    "aggressive_threshold_only": HybridConfig(
        confidence_threshold=0.40, max_predict_steps=100, correction_interval=20
    ),
    # "Model-Specific Tuning"; the original's gradient checkpointing for `large` is left off: it is not built.
    "small": _config(50, 15, 50, 10, 0.70),
    "medium": _config(100, 20, 75, 15, 0.60),
    "large": _config(150, 25, 100, 20, 0.50),
    # "Training Stage Tuning".
    "early": _config(200, 20, 50, 10, 0.80),
    "mid": _config(100, 20, 75, 15, 0.60),
    "late": _config(50, 20, 150, 25, 0.40),
}


def preset(name: str) -> HybridConfig:
    """Return the preset called `name`.

    Raises:
        UserError: where there is none; the message lists them.
    """
    if name not in PRESETS:
        raise unknown_name("preset", name, sorted(PRESETS))
    return PRESETS[name]


def preset_for_size(parameters: int) -> HybridConfig:
    """Return the original's preset for a model of `parameters` weights (bounds 10⁸ and 10⁹)."""
    return PRESETS["small" if parameters < 1e8 else "medium" if parameters < 1e9 else "large"]


def preset_for_loss(loss: float) -> HybridConfig:
    """Return the original's preset for the stage of training that `loss` suggests (bounds 1.0 and 0.1).

    A loss of exactly 1.0 counts as mid training, one of exactly 0.1 too.
    """
    return PRESETS["early" if loss > 1.0 else "mid" if loss >= 0.1 else "late"]
