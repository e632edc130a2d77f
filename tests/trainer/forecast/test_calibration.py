"""Calibration: bins, isotonic curve, reliability table."""

import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybrid_sweep.trainer.forecast.calibration import (
    BINS,
    SHARE_WEIGHT,
    Calibration,
    Calibrator,
    bin_of,
    reliability,
)

LEARNED: list[Calibration] = ["binned", "isotonic"]


def expected_error(pairs: list[tuple[float, bool]]) -> float:
    """Expected calibration error: the gap of each bin, weighted by its share."""
    table = reliability(pairs)
    return sum(each.predictions * abs(each.confidence - each.accuracy) for each in table) / len(pairs)


@pytest.mark.parametrize("calibration", LEARNED)
def test_an_overconfident_predictor_is_put_right(calibration: Calibration) -> None:
    rng, calibrator = random.Random(0), Calibrator(calibration)
    draws = [rng.random() for _ in range(20_000)]
    pairs = [(raw, rng.random() < 0.7 * raw) for raw in draws]
    for raw, accurate in pairs[:10_000]:
        calibrator.learn(raw, accurate)
    held_out = pairs[10_000:]
    assert expected_error(held_out) >= 0.10
    assert expected_error([(calibrator(raw), accurate) for raw, accurate in held_out]) <= 0.03


@pytest.mark.parametrize("calibration", ["none", *LEARNED])
def test_without_outcomes_it_is_the_raw_confidence_and_each_outcome_moves_it_a_little(
    calibration: Calibration,
) -> None:
    calibrator, values = Calibrator(calibration), []
    for _ in range(30):
        values.append(calibrator(0.65))
        calibrator.learn(0.65, False)
    assert values[0] == pytest.approx(0.65)
    assert all((after < before) == (calibration != "none") for before, after in pairwise(values))
    assert values[-1] < 0.05 or calibration == "none"


def test_few_outcomes_of_a_bin_are_shrunk_towards_the_share_of_all() -> None:
    calibrator = Calibrator("binned")
    for i in range(1000):
        calibrator.learn(0.95, i % 10 > 0)
    calibrator.learn(0.25, False)
    assert calibrator(0.25) == pytest.approx(0.9 * SHARE_WEIGHT / (SHARE_WEIGHT + 1), abs=0.01)
    assert calibrator(0.55) == pytest.approx(0.9, abs=0.01)


@pytest.mark.parametrize("calibration", LEARNED)
def test_what_a_jump_has_shown_says_more_than_the_raw_confidence(calibration: Calibration) -> None:
    calibrator = Calibrator(calibration)
    for i in range(100):
        calibrator.learn(0.85, True)
        calibrator.learn(0.85, True, shown=1.0)
        calibrator.learn(0.85, False, shown=0.0)
        calibrator.learn(0.85, i % 2 > 0, shown=0.5)
    none, some, every = (calibrator(0.85, shown) for shown in (0.0, 0.3, 1.0))
    assert none < 0.15 < 0.4 < some < 0.65 < 0.9 < every
    assert calibrator(0.85) > 0.9
    assert calibrator(0.1, 1.0) == pytest.approx(every, abs=0.01)


@given(st.floats(0, 1))
def test_every_confidence_has_a_bin(confidence: float) -> None:
    assert 0 <= bin_of(confidence) < BINS
    assert bin_of(1.0) == BINS - 1


@settings(deadline=None)  # SciPy loads at the first call
@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), max_size=300))
def test_calibrated_confidences_are_shares_and_isotonic_ones_ordered(
    pairs: list[tuple[float, bool]],
) -> None:
    binned, isotonic = Calibrator("binned"), Calibrator("isotonic")
    for raw, accurate in pairs:
        binned.learn(raw, accurate)
        isotonic.learn(raw, accurate)
    grid = [i / 40 for i in range(41)]
    assert all(0 <= binned(raw) <= 1 for raw in grid)
    curve = [isotonic(raw) for raw in grid]
    assert all(a <= b + 1e-9 for a, b in pairwise(curve))
    assert curve[0] >= 0 and curve[-1] <= 1


def test_outcomes_fade() -> None:
    calibrator = Calibrator("binned")
    for _ in range(40):
        calibrator.learn(0.9, False)
    values = {False: [calibrator(0.9)], True: [calibrator(0.9)]}
    for idle, told in values.items():
        fading = Calibrator("binned")
        fading.load_state_dict(calibrator.state_dict())
        for _ in range(60):
            fading.fade(idle=idle)
            told.append(fading(0.9))
        assert told[0] < 0.05
        assert all(before < after for before, after in pairwise(told))
    assert values[False][-1] < 0.2 < 0.85 < values[True][-1]


def test_the_table_counts_confidence_and_outcomes() -> None:
    table = reliability([(0.81, True), (0.83, False), (0.2, False), (1.0, True)])
    assert [each.predictions for each in table] == [1, 2, 1]
    assert table[1].confidence == pytest.approx(0.82)
    assert [each.accuracy for each in table] == [0, 0.5, 1]
    assert reliability([]) == []


def test_state_round_trip() -> None:
    one, other = Calibrator("binned"), Calibrator("binned")
    for _ in range(40):
        one.learn(0.7, False)
        one.learn(0.7, False, shown=0.5)
    state = one.state_dict()
    other.load_state_dict(state)
    one.learn(0.7, True)
    assert 0 < other(0.7) < one(0.7)
    assert other(0.7, 0.5) < one(0.7, 0.5)
    assert other.state_dict() == state
