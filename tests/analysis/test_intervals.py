"""Intervals of means over seeds are Student's t, and read as people write them."""

import math

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybrid_sweep.analysis.intervals import half_width, shown, student_t, too_few, with_intervals


@pytest.mark.parametrize(
    ("freedom", "quantile"),  # the printed table of any textbook
    [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (9, 2.262), (10, 2.228), (30, 2.042), (120, 1.980)],
)
def test_the_quantile_is_the_textbooks(freedom: int, quantile: float) -> None:
    assert student_t(freedom) == pytest.approx(quantile, abs=5e-4)


def test_the_quantile_falls_towards_the_normal_one() -> None:
    values = [student_t(freedom) for freedom in range(1, 200)]
    assert values == sorted(values, reverse=True)
    assert student_t(5000) == pytest.approx(1.95996, abs=1e-3)
    assert math.isnan(student_t(0))


@settings(deadline=None)
@given(st.lists(st.floats(0.5, 5.0), min_size=3, max_size=6), st.floats(0.1, 10))
def test_an_interval_holds_its_mean_and_scales_with_the_values(values: list[float], factor: float) -> None:
    def half(numbers: list[float]) -> float:
        trials = pd.DataFrame({"trial_id": "a", "speedup": numbers})
        means = pd.DataFrame({"trial_id": ["a"], "speedup": [sum(numbers) / len(numbers)]})
        row = with_intervals(means, trials, ["speedup"]).iloc[0]
        assert row["speedup_low"] <= row["speedup"] <= row["speedup_high"]
        return float(row["speedup_high"] - row["speedup"])

    assert half([factor * value for value in values]) == pytest.approx(factor * half(values), abs=1e-9)


def test_a_value_is_shown_with_its_interval_where_it_has_one() -> None:
    row = {"speedup": 2.6, "speedup_low": 2.4, "speedup_high": 2.8, "quality": 0.98765}
    assert shown(row, "speedup", 2) == "2.60 ± 0.20"
    assert shown(row, "quality", 4) == "0.9877"
    assert shown({**row, "speedup_low": math.nan, "speedup_high": math.nan}, "speedup", 1) == "2.6"


def test_two_seeds_are_too_few_and_say_so() -> None:
    trials = pd.DataFrame({"trial_id": "a", "speedup": [1.6, 2.0]})
    row = with_intervals(pd.DataFrame({"trial_id": ["a"], "speedup": [1.8]}), trials, ["speedup"]).iloc[0]
    assert row["seeds"] == 2 and math.isnan(row["speedup_low"]) and math.isnan(row["speedup_high"])
    assert math.isnan(half_width([1.6, 2.0])) and half_width([1.6, 1.8, 2.0]) == pytest.approx(
        0.4968, abs=1e-4
    )
    assert too_few(2) == "2 seeds are too few for an interval: run with --repeats 3 or more"
    assert too_few(1) == too_few(3) == ""
