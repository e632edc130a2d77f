"""The original's eight-item adoption checklist, each item measured, and the recommendation that follows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from hybrid_sweep.store.runs import number

_ROUNDING = 1e-9  # a bound met exactly must not fail by the last bit of a float

Row = Mapping[str, Any] | pd.Series
"""A row of a table of trials or of a front."""


class Item(NamedTuple):
    """One item: `passed` is None where it was not run, or cannot be on this device."""

    number: int
    name: str
    passed: bool | None
    measured: str
    allowed: str


def check(row: Row, peers: pd.DataFrame, *, speedup: str = "speedup") -> list[Item]:
    """Return the eight items for one configuration (original, validation checklist).

    Args:
        row: A trial, or a front's row of means over seeds.
        peers: Trials of the sweep; those with the row's `trial_id` are its repeats.
        speedup: The sweep's speed. A counted one can fail the speedup item, but only a wall clock passes it.
    """
    repeats = peers[peers["trial_id"] == row["trial_id"]]
    return [
        _baseline(row),
        _convergence(row),
        _stability(row),
        _speedup(row, speedup),
        _memory(row),
        _reproducibility(repeats),
        _divergence(row),
        _calibration(row),
    ]


def recommendation(items: Sequence[Item]) -> str:
    """Return "ADOPT", "REJECT: <failed items>" or "CONFIRM FIRST: <items not run or not applicable>".

    It judges the sweep's own runs; what is recommended to a user is `analysis.verdict`, which also asks
    whether a control does as well on fresh seeds.
    """
    if failed := [item.name for item in items if item.passed is False]:
        return f"REJECT: {', '.join(failed)}"
    if missing := [item.name for item in items if item.passed is None]:
        return f"CONFIRM FIRST: {', '.join(missing)}"
    return "ADOPT"


def _baseline(row: Row) -> Item:
    loss, reference = number(row.get("val_loss")), number(row.get("reference_val_loss"))
    allowed = "held-out loss ≤ 2 % above plain training"
    if math.isnan(loss) or not reference > 0:
        return Item(1, "baseline", None, "not measured", allowed)
    ratio = loss / reference
    return Item(1, "baseline", _at_most(ratio, 1.02), f"{100 * (ratio - 1):+.2f} %", allowed)


def _convergence(row: Row) -> Item:
    ratio = number(row.get("steps_to_target_ratio"))
    allowed = "target loss within 1.10 of the reference's steps"
    if math.isinf(ratio):
        return Item(2, "convergence", False, "never reached", allowed)
    return _bounded(2, "convergence", ratio, 1.10, f"{ratio:.2f}", allowed)


def _stability(row: Row) -> Item:
    count = number(row.get("nonfinite_steps"))
    return _bounded(3, "stability", count, 0, f"{count:g}", "no NaN or infinity, even if recovered")


def _speedup(row: Row, column: str) -> Item:
    value = number(row.get(column))
    allowed = "≥ 3 times, wall clock"
    if math.isnan(value):
        return Item(4, "speedup", None, "not measured", allowed)
    enough = value >= 3.0 - _ROUNDING
    if column == "speedup":
        return Item(4, "speedup", enough, f"{value:.2f}×", allowed)
    return Item(4, "speedup", None if enough else False, f"{value:.2f}× counted", allowed)


def _memory(row: Row) -> Item:
    ratio = number(row.get("peak_memory_ratio"))
    allowed = "peak GPU memory ≤ 120 % of plain training"
    return _bounded(5, "memory", ratio, 1.20, f"{100 * ratio:.0f} %", allowed, missing="n/a, no GPU")


def _reproducibility(repeats: pd.DataFrame) -> Item:
    allowed = "held-out loss varies ≤ 1 % over 3 seeds or more"
    if (bad := int(repeats["state"].isin(["diverged", "failed"]).sum())) and len(repeats) > 1:
        return Item(6, "reproducibility", False, f"{bad} of {len(repeats)} seeds lost", allowed)
    losses = repeats.loc[repeats["state"] == "done", "val_loss"].astype("float64").dropna()
    if len(losses) < 3 or not losses.mean() > 0:
        return Item(6, "reproducibility", None, f"{len(losses)} seed{'s'[: len(losses) != 1]}", allowed)
    variation = float(losses.std() / losses.mean())
    measured = f"{100 * variation:.2f} % over {len(losses)} seeds"
    return Item(6, "reproducibility", _at_most(variation, 0.01), measured, allowed)


def _divergence(row: Row) -> Item:
    rate = number(row.get("warning_rate"))
    passed = None if math.isnan(rate) else rate < 0.05 - _ROUNDING
    measured = "not measured" if passed is None else f"{100 * rate:.2f} %"
    return Item(7, "divergence", passed, measured, "warnings on < 5 % of steps")


def _calibration(row: Row) -> Item:
    error = number(row.get("calibration_error"))
    return _bounded(8, "calibration", error, 0.10, f"±{error:.2f}", "confidence within ±0.10 of accuracy")


def _bounded(
    number: int,
    name: str,
    value: float,
    bound: float,
    shown: str,
    allowed: str,
    missing: str = "not measured",
) -> Item:
    if math.isnan(value):
        return Item(number, name, None, missing, allowed)
    return Item(number, name, _at_most(value, bound), shown, allowed)


def _at_most(value: float, bound: float) -> bool:
    return bool(value <= bound + _ROUNDING)
