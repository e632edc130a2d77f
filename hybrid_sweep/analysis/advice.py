"""The original design's debugging rules, each given only where its symptom was measured."""

from __future__ import annotations

import math
from collections.abc import Callable

from hybrid_sweep.analysis.cells import settings_in
from hybrid_sweep.analysis.checklist import Row
from hybrid_sweep.store.runs import number

WORSE_LOSS = 1.02
FREQUENT_WARNINGS = 0.05
LOW_SPEEDUP = 3.0
LOW_REDUCTION_PCT = 60.0


def advice(row: Row) -> list[str]:
    """Return what the original design would change about a configuration, a sentence a symptom.

    A setting that is already as advised is not advised again, and none is advised in both directions: the
    symptom that is told first decides, quality before speed.

    Args:
        row: A trial, or a front's row of means over seeds.
    """
    changes = _Changes(row)
    rules: tuple[Callable[[Row, _Changes], str | None], ...] = (_never_predicts, _quality, _divergence, _slow)
    return [sentence for rule in rules if (sentence := rule(row, changes))]


class _Changes:
    """The changes that were advised of one configuration so far: a setting goes one way only."""

    def __init__(self, row: Row) -> None:
        self._row = row
        self._raised: dict[str, bool] = {}

    def up(self, name: str, value: float) -> list[str]:
        """Return the advice to raise a setting, nothing where it is as high already or was to be lowered."""
        return self._change(name, value, up=True)

    def down(self, name: str, value: float) -> list[str]:
        """Return the advice to lower a setting, nothing where it is as low already or was to be raised."""
        return self._change(name, value, up=False)

    def _change(self, name: str, value: float, *, up: bool) -> list[str]:
        present = number(self._row.get(name))
        present = _setting(self._row, name) if math.isnan(present) else present
        if not (present < value if up else present > value) or self._raised.setdefault(name, up) != up:
            return []
        return [f"{'raise' if up else 'lower'} {name} to {value:g}"]


def _never_predicts(row: Row, changes: _Changes) -> str | None:
    highest, threshold = number(row.get("max_confidence")), number(row.get("confidence_threshold"))
    if number(row.get("predict_phases")) != 0:
        return None
    steps, first = number(row.get("steps")), _setting(row, "warmup_steps") + _setting(row, "full_steps")
    if first >= steps:
        return (
            f"Predict never started: Warmup and the first Full phase take {first:.0f} steps and the run has "
            f"{steps:.0f}; train for more steps, or lower warmup_steps and full_steps"
        )
    if not highest < threshold:
        return (
            "Predict never started, and no decision was left to confidence alone: the directions of "
            "successive Full phases disagreed, or the end was near; lower minimum_cosine, or train for more "
            "steps"
        )
    lower = min(0.5, math.floor(100 * highest) / 100)
    found = f"confidence reached {highest:.2f} and the threshold is {threshold:.2f}"
    advised = changes.down("confidence_threshold", lower) if lower > 0 else []
    return "; ".join([f"Predict never started: {found}", *advised])


def _quality(row: Row, changes: _Changes) -> str | None:
    loss, reference = number(row.get("val_loss")), number(row.get("reference_val_loss"))
    if not (reference > 0 and loss / reference > WORSE_LOSS):
        return None
    advised = changes.down("max_predict_steps", 50)
    interval = number(row.get("correction_interval"))
    advised += ["set correction_interval to 10"] if interval == 0 else changes.down("correction_interval", 10)
    found = f"The held-out loss is {100 * (loss / reference - 1):.1f} % above plain training's"
    return f"{found}: {' and '.join(advised)}" if advised else None


def _divergence(row: Row, changes: _Changes) -> str | None:
    rate = number(row.get("warning_rate"))
    if not rate >= FREQUENT_WARNINGS:
        return None
    advised = [*changes.up("warmup_steps", 200), *changes.up("full_steps", 30)]
    return (
        f"{100 * rate:.1f} % of the steps warned of divergence: "
        f"{', '.join([*advised, 'or lower the learning rate'])} (the original design would also tighten "
        "divergence_threshold to 2.5, which warns more often, not less)"
    )


def _slow(row: Row, changes: _Changes) -> str | None:
    speedup, reduction = number(row.get("speedup")), number(row.get("backward_reduction_pct"))
    if math.isnan(speedup):
        speedup = number(row.get("speedup_counted"))
    phases, mean = number(row.get("predict_phases")), number(row.get("realised_horizon_mean"))
    if not (speedup < LOW_SPEEDUP and reduction < LOW_REDUCTION_PCT and phases > 0):
        return None
    longest = number(row.get("max_predict_steps"))
    advised = [*changes.up("max_predict_steps", 100), *changes.down("confidence_threshold", 0.5)]
    if not advised:
        return None
    return (
        f"{speedup:.2f} times as fast with {reduction:.0f} % of the backward passes saved: horizons were "
        f"{mean:.0f} of at most {longest:.0f} steps; {' and '.join(advised)}"
    )


def _setting(row: Row, name: str) -> float:
    """Return a setting that has no column of its own; not-a-number where it is not known."""
    return number(settings_in(row.get("config"), row.get("trial_id")).get(name))
