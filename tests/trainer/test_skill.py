"""Skill scores and their intervals."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybrid_sweep.trainer.skill import BLOCKS, MINIMUM_BLOCKS, Skill, relative_error


def scored(jumps: list[list[tuple[float, float]]]) -> Skill:
    skill = Skill()
    for jump in jumps:
        for own, simple in jump:
            skill.add(own, simple)
        skill.end_jump()
    return skill


def test_it_is_one_minus_the_ratio_of_the_squared_errors() -> None:
    assert scored([[(1.0, 2.0), (2.0, 4.0)], [(0.0, 0.0)]]).interval().value == pytest.approx(1 - 5 / 20)
    assert scored([[(0.0, 1.0)]]).interval().value == 1
    assert scored([[(2.0, 1.0)]]).interval().value == -3


def test_nothing_is_told_without_predictions_and_no_interval_of_few_jumps() -> None:
    assert all(math.isnan(each) for each in scored([]).interval())
    assert all(math.isnan(each) for each in scored([[(1.0, 0.0)]]).interval())
    few = scored([[(1.0, 2.0)]] * (MINIMUM_BLOCKS - 1)).interval()
    assert few.value == 0.75 and math.isnan(few.low) and math.isnan(few.high)
    enough = scored([[(1.0, 2.0)]] * MINIMUM_BLOCKS).interval()
    assert enough.low == enough.value == enough.high == 0.75


def test_predictions_of_the_jump_that_goes_on_count() -> None:
    skill = scored([[(1.0, 2.0)]])
    skill.add(0.0, 2.0)
    assert skill.interval().value == pytest.approx(1 - 1 / 8)


def test_the_interval_holds_the_truth_nineteen_times_in_twenty_however_alike_a_jumps_errors_are() -> None:
    rng, inside = random.Random(0), 0
    for _ in range(400):
        jumps = []
        for _ in range(25):
            own, simple = rng.gauss(0, 1), rng.gauss(0, 2)
            jumps.append([(own, simple)] * 6)  # six times the same error are one error
        low, high = scored(jumps).interval()[1:]
        inside += low <= 0.75 <= high
    assert 0.85 < inside / 400 <= 0.99


@given(st.integers(BLOCKS - 2, 3 * BLOCKS))
def test_many_jumps_are_kept_as_few_blocks_and_none_is_lost(count: int) -> None:
    skill = scored([[(1.0, 2.0)]] * count)
    blocks = skill.state_dict()["_blocks"]
    assert len(blocks) < BLOCKS
    assert sum(simple for _, simple in blocks) == 4 * count


def test_state_round_trip() -> None:
    one, other = scored([[(1.0, 2.0)], [(3.0, 2.0)]]), Skill()
    one.add(0.5, 1.0)
    state = one.state_dict()
    other.load_state_dict(state)
    for skill in (one, other):
        skill.end_jump()
        skill.add(1.0, 1.0)
    assert one.interval() == other.interval()
    assert one.state_dict() == other.state_dict() != state


def test_relative_errors_are_bounded_and_know_no_unit() -> None:
    assert relative_error(1.1, 1.0) == pytest.approx(0.1 / 1.05)
    assert relative_error(1.1e-9, 1.0e-9) == pytest.approx(0.1 / 1.05)
    assert relative_error(1e9, 1e-9) == pytest.approx(2)
    assert relative_error(-1.0, 1.0) == -2
    assert relative_error(0.0, 0.0) == 0
