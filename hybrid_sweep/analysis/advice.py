"""The seed's debugging rules (Debugging Poor Performance), each given only where its symptom was measured."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

from hybrid_sweep.analysis.checklist import Row
from hybrid_sweep.analysis.runs import number

WORSE_LOSS = 1.02
FREQUENT_WARNINGS = 0.05
LOW_SPEEDUP = 3.0
LOW_REDUCTION_PCT = 60.0


def advice(row: Row) -> list[str]:
    """Return what the seed would change about a configuration, a sentence a rule (inventory rows 87 to 90).

    A setting that is already as the seed advises is not advised again.

    Args:
        row: A trial, or a front's row of means over seeds.
    """
    rules: tuple[Callable[[], str | None], ...] = (
        lambda: _never_predicts(row),
        lambda: _quality(row),
        lambda: _divergence(row),
        lambda: _low_speedup(row),
    )
    return [sentence for rule in rules if (sentence := rule())]


def _never_predicts(row: Row) -> str | None:
    highest, threshold = number(row.get("max_confidence")), number(row.get("confidence_threshold"))
    if number(row.get("predict_phases")) != 0 or not highest < threshold:
        return None
    steps, first = number(row.get("steps")), _setting(row, "warmup_steps") + _setting(row, "full_steps")
    if first >= steps:
        return (
            f"Predict never started: Warmup and the first Full phase take {first:.0f} steps and the run has "
            f"{steps:.0f}; train for more steps, or lower warmup_steps and full_steps"
        )
    lower = min(0.5, math.floor(100 * highest) / 100)
    found = f"confidence reached {highest:.2f} and the threshold is {threshold:.2f}"
    return f"Predict never started: {found}" + (
        f"; lower confidence_threshold to {lower:.2f}" if lower else ""
    )


def _quality(row: Row) -> str | None:
    loss, reference = number(row.get("val_loss")), number(row.get("reference_val_loss"))
    if not (reference > 0 and loss / reference > WORSE_LOSS):
        return None
    changes = []
    if number(row.get("max_predict_steps")) > 50:
        changes.append("shorten max_predict_steps to 50")
    interval = number(row.get("correction_interval"))
    if interval == 0 or interval > 10:
        changes.append("set correction_interval to 10")
    found = f"The held-out loss is {100 * (loss / reference - 1):.1f} % above plain training's"
    return f"{found}: {' and '.join(changes)}" if changes else None


def _divergence(row: Row) -> str | None:
    rate = number(row.get("warning_rate"))
    if not rate >= FREQUENT_WARNINGS:
        return None
    changes = [
        f"raise {name} to {value}"
        for name, value in (("warmup_steps", 200), ("full_steps", 30))
        if _setting(row, name) < value
    ]
    return (
        f"{100 * rate:.1f} % of the steps warned of divergence: "
        f"{', '.join([*changes, 'or lower the learning rate'])} (the seed would also tighten "
        "divergence_threshold to 2.5, which warns more often, not less)"
    )


def _low_speedup(row: Row) -> str | None:
    speedup, reduction = number(row.get("speedup")), number(row.get("backward_reduction_pct"))
    if math.isnan(speedup):
        speedup = number(row.get("speedup_counted"))
    phases, mean = number(row.get("predict_phases")), number(row.get("realised_horizon_mean"))
    if not (speedup < LOW_SPEEDUP and reduction < LOW_REDUCTION_PCT and phases > 0):
        return None
    longest = number(row.get("max_predict_steps"))
    changes = []
    if longest < 100:
        changes.append("raise max_predict_steps to 100")
    if number(row.get("confidence_threshold")) > 0.5:
        changes.append("lower confidence_threshold to 0.50")
    if not changes:
        return None
    return (
        f"{speedup:.2f} times as fast with {reduction:.0f} % of the backward passes saved: horizons were "
        f"{mean:.0f} of at most {longest:.0f} steps; {' and '.join(changes)}"
    )


def _setting(row: Row, name: str) -> float:
    """Return a setting that has no column of its own; not-a-number where it is not known."""
    return float(json.loads(row.get("config") or "{}").get(name, math.nan))
