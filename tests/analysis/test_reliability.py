"""The reliability table over seeds."""

import json

import pandas as pd
import pytest

from hybrid_sweep.analysis.reliability import constant_brier, reliability


def table(*texts: str) -> pd.DataFrame:
    return pd.DataFrame({"trial_id": ["a"] * len(texts) + ["b"], "reliability": [*texts, "[[9, 0.1, 1.0]]"]})


def test_the_seeds_of_a_configuration_are_pooled() -> None:
    trials = table(json.dumps([[30, 0.65, 0.5], [10, 1.0, 1.0]]), json.dumps([[10, 0.69, 0.9]]), "")
    low, high = reliability(trials, "a")
    assert low == pytest.approx((40, 0.66, 0.6))
    assert high == (10, 1.0, 1.0)
    assert constant_brier([low, high]) == pytest.approx(0.68 * 0.32)


def test_without_predictions_there_is_no_table() -> None:
    assert reliability(table("", "[]"), "a") == []
    assert constant_brier([]) is None
