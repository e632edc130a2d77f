"""Going on under another configuration: what is kept of a saved run, and what starts afresh."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hybrid_sweep.errors import UserError
from hybrid_sweep.trainer.config import HybridConfig, current_values
from hybrid_sweep.trainer.phases import FULL_STEPS_GROWTH, Phase
from hybrid_sweep.trainer.predictors import PREDICTORS
from hybrid_sweep.trainer.predictors.windowed import Windowed

OF_DYNAMICS = ("predictor_hidden_size", "predictor_members", "predictor_seed")
"""Settings with which RSSM-lite is built."""


def changes(before: Mapping[str, Any], now: HybridConfig) -> dict[str, tuple[Any, Any]]:
    """Return the settings that differ, each as it was and as it is."""
    ours, saved = now.model_dump(), current_values(before)
    return {name: (value, ours.get(name)) for name, value in saved.items() if ours.get(name) != value}


def starts_afresh(changed: Mapping[str, tuple[Any, Any]], now: HybridConfig) -> dict[str, list[str]]:
    """Return which learned parts cannot go on, and because of which settings.

    The directions of another predictor, and averages over windows of another length, mean something else; so
    do the weights of another network, and the limits of another rule.
    """
    windowed = issubclass(PREDICTORS[now.predictor], Windowed)
    literal = "original" in changed.get("gates", ())
    causes = {
        "predictor": ["predictor", *["full_steps"] * windowed],
        "dynamics": [*OF_DYNAMICS, *["gates"] * literal],
        "monitor": ["divergence_rule"],
    }
    found = {part: [name for name in names if name in changed] for part, names in causes.items()}
    return {part: names for part, names in found.items() if names}


def controller_under(
    state: Mapping[str, Any], before: Mapping[str, Any], now: HybridConfig
) -> dict[str, Any]:
    """Return the controller's state for the new phase lengths.

    The phase that runs keeps its length, but for Warmup; Full phases that had grown stay as much longer.

    Raises:
        UserError: the run was saved within a jump, which only its own settings can end.
    """
    phase, done = Phase(state["phase"]), state["steps_in_current_phase"]
    if phase is Phase.PREDICT and state["remaining"] > 0:
        raise UserError(
            f"the run was saved {done} steps into a jump, which only its own configuration can end: save it "
            "where a cycle ends (after `run` or `run_cycle`), or go on with that configuration"
        )
    grown = round(state["full_steps"] / before["full_steps"] * now.full_steps)
    full = min(grown, FULL_STEPS_GROWTH * now.full_steps)
    left = max(now.warmup_steps - done, 0) if phase is Phase.WARMUP else state["remaining"]
    return {**state, "full_steps": full, "remaining": left}
