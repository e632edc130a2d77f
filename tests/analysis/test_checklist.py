"""Each checklist item at its boundary (original, validation checklist), and the recommendation."""

import math
from typing import Any

import pandas as pd
import pytest

from hybrid_sweep.analysis.checklist import Item, check, recommendation

GOOD: dict[str, Any] = {
    "trial_id": "a",
    "val_loss": 0.30,
    "reference_val_loss": 0.30,
    "steps_to_target_ratio": 1.0,
    "nonfinite_steps": 0,
    "speedup": 4.0,
    "speedup_counted": 4.0,
    "peak_memory_ratio": 1.1,
    "warning_rate": 0.0,
    "calibration_error": 0.05,
}


def repeats(*losses: float, state: str = "done") -> pd.DataFrame:
    return pd.DataFrame({"trial_id": "a", "state": state, "val_loss": list(losses)})


STEADY = repeats(0.300, 0.301, 0.299)


def item(number: int, peers: pd.DataFrame = STEADY, axis: str = "speedup", **change: Any) -> Item:
    found = check({**GOOD, **change}, peers, speedup=axis)[number - 1]
    assert found.number == number
    return found


@pytest.mark.parametrize(
    ("number", "column", "inside", "outside"),
    [
        (1, "val_loss", [0.30 * 1.019, 0.30 * 1.02, 0.25], [0.30 * 1.021, math.inf]),
        (2, "steps_to_target_ratio", [1.10, 0.5], [1.11, math.inf]),
        (3, "nonfinite_steps", [0], [1, 1 / 3]),
        (4, "speedup", [3.0, 5.0], [2.99]),
        (5, "peak_memory_ratio", [1.20], [1.21]),
        (7, "warning_rate", [0.049], [0.05, 0.2]),
        (8, "calibration_error", [0.10], [0.11]),
    ],
)
def test_boundaries(number: int, column: str, inside: list[float], outside: list[float]) -> None:
    assert all(item(number, **{column: value}).passed is True for value in inside)
    assert all(item(number, **{column: value}).passed is False for value in outside)
    assert all(item(number, **{column: value}).passed is None for value in (None, math.nan, pd.NA))


def test_an_unreached_target_fails_in_words() -> None:
    assert item(2, steps_to_target_ratio=math.inf).measured == "never reached"


def test_memory_without_a_gpu_is_never_a_pass() -> None:
    assert item(5, peak_memory_ratio=None).passed is None
    assert "n/a" in item(5, peak_memory_ratio=None).measured


def test_a_counted_speedup_can_fail_but_only_wall_clock_passes() -> None:
    assert item(4, axis="speedup_counted", speedup_counted=2.0).passed is False
    assert item(4, axis="speedup_counted").passed is None


@pytest.mark.parametrize(
    ("peers", "passed"),
    [
        (repeats(0.300, 0.301), None),
        (STEADY, True),
        (repeats(0.297, 0.300, 0.303), True),  # exactly 1 %
        (repeats(0.295, 0.300, 0.305), False),
        (repeats(0.300, 0.300, 0.300, state="running"), None),
        (repeats(0.300, 0.300, 0.300, state="diverged"), False),
        (STEADY.assign(trial_id="another"), None),
    ],
)
def test_reproducibility_needs_three_seeds_within_one_percent(
    peers: pd.DataFrame, passed: bool | None
) -> None:
    assert item(6, peers).passed is passed


def test_recommendation() -> None:
    assert recommendation(check(GOOD, STEADY)) == "ADOPT"
    assert (
        recommendation(check({**GOOD, "speedup": 2.0, "val_loss": 0.4}, STEADY))
        == "REJECT: baseline, speedup"
    )
    cpu = {**GOOD, "peak_memory_ratio": None}
    assert recommendation(check(cpu, repeats(0.3))) == "CONFIRM FIRST: memory, reproducibility"
    assert recommendation(check({**cpu, "speedup": 2.0}, STEADY)) == "REJECT: speedup"


def test_items_read_well_and_are_eight() -> None:
    items = check(GOOD, STEADY)
    assert [found.number for found in items] == list(range(1, 9))
    assert all(found.allowed and found.measured for found in items)
    assert items[0].measured == "+0.00 %"
    nothing = check({"trial_id": "a"}, STEADY.iloc[:0])
    assert all(found.passed is None for found in nothing)
