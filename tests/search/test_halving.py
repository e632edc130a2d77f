import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybrid_sweep.errors import UserError
from hybrid_sweep.search.halving import Halving, RungPosition, rungs, validate_rungs, value_at
from hybrid_sweep.spec.sweep import EarlyStopping, SweepSpec

RULE = EarlyStopping(reduction=3, first_rung=1 / 9)


def seen(step, speedup=1.5, quality=0.95, backward_calls=None):
    calls = step // 2 if backward_calls is None else backward_calls
    return {"step": step, "speedup_counted": speedup, "quality": quality, "backward_calls": calls}


def place(step, x, y, predicted=True):
    return RungPosition(step, (x, y), predicted)


@pytest.mark.parametrize(
    ("reduction", "first", "steps", "expected"),
    [
        (3, 1 / 9, 900, [100, 300]),
        (3, 1 / 9, 2345, [261, 782]),
        (2, 0.25, 400, [100, 200]),
        (4, 0.5, 100, [50]),
        (3, 0.001, 100, [1, 3, 8, 24, 73]),
        (1.1, 0.8, 100, [80, 88, 97]),
        (3, 1 / 9, 1, []),
    ],
)
def test_rungs_stand_at_shares_of_the_run_and_never_at_its_end(reduction, first, steps, expected):
    assert rungs(EarlyStopping(reduction=reduction, first_rung=first), steps) == expected


def test_reports_that_come_after_the_first_rung_are_refused():
    fields = {"name": "x", "workload": "a.b:C", "early_stopping": RULE}
    validate_rungs(SweepSpec(**fields, report_every=100), 900)
    validate_rungs(SweepSpec(**{**fields, "early_stopping": None}, report_every=101), 900)
    with pytest.raises(UserError, match=r"report_every=101 .* step 100 of 900: report more often"):
        validate_rungs(SweepSpec(**fields, report_every=101), 900)


def test_a_value_between_two_reports_lies_on_the_line_between_them():
    assert value_at(100, place(80, 1.0, 0.90), place(120, 2.0, 0.98)) == pytest.approx((1.5, 0.94))
    assert value_at(90, place(80, 1.0, 0.90), place(120, 2.0, 0.98)) == pytest.approx((1.25, 0.92))


def test_a_report_at_the_rung_needs_no_other():
    assert value_at(100, None, place(100, 2.0, 0.98)) == (2.0, 0.98)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, place(120, 2.0, 0.98)),
        (place(80, 1.0, 0.9, predicted=False), place(120, 2.0, 0.98)),
        (RungPosition(80, None, True), place(120, 2.0, 0.98)),
        (place(80, 1.0, 0.9), RungPosition(120, None, True)),
        (None, place(100, 1.0, 0.98, predicted=False)),
    ],
)
def test_what_says_nothing_of_a_rung_is_no_value(before, after):
    assert value_at(100, before, after) is None


def judged(halving, number, speedup, quality=0.95, warmup=10):
    """Two reports around the first rung; whether the run is stopped there."""
    key = (f"T{number}", 0)
    assert not halving.report(key, seen(80, speedup, quality), warmup)
    return halving.report(key, seen(120, speedup, quality), warmup)


def test_while_too_few_have_come_all_go_on_and_then_one_in_three():
    halving = Halving(RULE, 900)
    assert [judged(halving, n, speedup) for n, speedup in enumerate([1.2, 1.1])] == [False, False]
    assert [judged(halving, n, speedup) for n, speedup in enumerate([1.0, 1.3], 2)] == [True, False]
    # of six that came, the best two go on
    assert [judged(halving, n, speedup) for n, speedup in enumerate([1.15, 1.25], 4)] == [True, False]


def test_a_run_that_no_other_beats_goes_on_where_it_is_at_an_end_of_the_front():
    halving = Halving(RULE, 900)
    front = [(1.0, 0.99), (1.5, 0.95), (1.2, 0.97), (1.9, 0.80), (1.6, 0.94), (1.18, 0.972)]
    stopped = [judged(halving, number, *values) for number, values in enumerate(front)]
    assert stopped == [False, False, True, False, True, True]


def test_equal_runs_are_not_told_apart():
    halving = Halving(RULE, 900)
    assert not any(judged(halving, number, 1.5) for number in range(10))


def test_a_run_is_not_judged_inside_its_warm_up_and_does_not_count_there():
    halving = Halving(RULE, 900)
    for number in range(5):
        judged(halving, number, 2.0, warmup=100)
    assert not judged(halving, 5, 1.0)
    assert not judged(halving, 6, 1.1)
    assert judged(halving, 7, 0.9)


def test_a_run_is_not_judged_before_it_has_predicted():
    halving = Halving(RULE, 900)
    for number in range(5):
        judged(halving, number, 2.0)
    key = ("slow", 0)
    assert not halving.report(key, seen(80, 1.0, 0.5, backward_calls=80), 10)
    assert not halving.report(key, seen(120, 1.0, 0.5, backward_calls=100), 10)
    assert halving.report(key, seen(310, 1.0, 0.5, backward_calls=200), 10) is False  # alone at the second
    assert judged(halving, 9, 1.0, 0.5)


@pytest.mark.parametrize("nothing", [None, float("nan"), "inf"])
def test_values_that_are_not_finite_are_not_judged(nothing):
    halving = Halving(RULE, 900)
    for number in range(5):
        judged(halving, number, 2.0)
    assert not judged(halving, 5, nothing)
    assert not judged(halving, 6, 1.0, nothing)


def test_a_run_that_was_lost_is_judged_once_at_each_rung():
    halving = Halving(RULE, 900)
    for number in range(3):
        judged(halving, number, 2.0 + number)
    key = ("lost", 0)
    halving.report(key, seen(80, 5.0), 10)
    assert not halving.report(key, seen(250, 5.0), 10)
    for step in (60, 90, 150, 280):
        assert not halving.report(key, seen(step, 0.1, 0.1), 10)


@given(st.integers(0, 2**32), st.sampled_from([2, 3, 4.5]))
def test_in_the_long_run_one_in_reduction_goes_on_and_the_reports_decide_alone(seed, reduction):
    rng = random.Random(seed)
    runs = [(rng.random(), rng.random()) for _ in range(60)]

    def decide():
        halving = Halving(EarlyStopping(reduction=reduction), 900)
        return [judged(halving, number, *values) for number, values in enumerate(runs)]

    decisions = decide()
    assert decisions == decide()
    assert not any(decisions[: int(reduction) - 1])
    best = max(runs)
    assert not decisions[runs.index(best)]
    assert decisions.count(False) < 48
