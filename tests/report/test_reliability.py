"""The reliability table over seeds."""

import json

import pandas as pd
import pytest

from hybrid_sweep.report.reliability import constant_brier, reliability, skills


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


def runs(*rows: tuple[float | None, float | None, float | None]) -> pd.DataFrame:
    names = ["confidence_skill", "confidence_skill_low", "confidence_skill_high"]
    return pd.DataFrame(rows, columns=names, dtype="Float64").assign(trial_id="a")


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (
            [(0.3, 0.1, 0.5)],
            "Confidence has skill here: 0.30 [0.10, 0.50], where 1 is perfect and 0 is",
        ),
        ([(0.3, -0.1, 0.7)], "Confidence has no skill here that can be told from none: 0.30 [-0.10, 0.70]"),
        ([(-0.3, -0.4, -0.2)], "Confidence has less than no skill here: -0.30 [-0.40, -0.20]"),
        (
            [(0.3, None, None)],
            "Confidence was scored on too few jumps or seeds to say whether it has skill",
        ),
        ([(None, None, None)], "Confidence was never scored: whether it has skill is not known."),
        ([(0.2, -1, 1), (0.3, -1, 1), (0.25, -1, 1)], "Confidence has skill here: 0.25 [0.13, 0.37]"),
        ([(0.2, 0.1, 1), (-0.3, -1, 1)], "Confidence was scored on too few jumps or seeds"),
        ([(0.2, 0.1, 0.3), (None, None, None)], "Confidence has skill here: 0.20 [0.10, 0.30]"),
    ],
)
def test_skill_is_told_in_words_with_its_interval(
    rows: list[tuple[float | None, float | None, float | None]], says: str
) -> None:
    (sentence,) = skills(runs(*rows), "a")
    assert sentence.startswith(says)
