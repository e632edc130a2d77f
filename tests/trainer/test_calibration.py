"""Calibration: bins, isotonic curve, reliability table."""

import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybrid_sweep.trainer.calibration import (
    BINS,
    MINIMUM_COUNT,
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
def test_without_enough_outcomes_it_is_the_raw_confidence(calibration: Calibration) -> None:
    calibrator = Calibrator(calibration)
    for _ in range(MINIMUM_COUNT - 1):
        calibrator.learn(0.65, False)
    assert calibrator(0.65) == 0.65
    calibrator.learn(0.65, False)
    assert (calibrator(0.65) == 0.65) == (calibration == "none")


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
    for _ in range(2 * MINIMUM_COUNT):
        calibrator.learn(0.9, False)
    assert calibrator(0.9) == 0
    for _ in range(40):
        calibrator.fade()
    assert calibrator(0.9) == 0.9


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
    state = one.state_dict()
    other.load_state_dict(state)
    one.learn(0.7, True)
    assert other(0.7) == 0 < one(0.7)
    assert other.state_dict() == state
