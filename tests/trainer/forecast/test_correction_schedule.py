"""The correction schedule: fixed, and by the size of prediction errors."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.problem import Problem

from hybrid_sweep.trainer import HybridConfig, HybridTrainer
from hybrid_sweep.trainer.forecast.correction_schedule import CorrectionSchedule
from hybrid_sweep.trainer.state import Segment

BASES = st.integers(1, 1000)
UNITS = st.sampled_from([2, 8, 0.5])
WHOLE = st.lists(st.lists(st.integers(-1000, 1000), min_size=1), max_size=10)
CYCLES = st.lists(st.lists(st.floats(-1e3, 1e3), max_size=20), max_size=30)


def after(base: int, cycles: list[list[float]]) -> int:
    schedule = CorrectionSchedule(base, "adaptive")
    for residuals in cycles:
        schedule.update(residuals)
    return schedule.interval


@given(BASES, CYCLES)
def test_the_interval_stays_within_half_and_twice_the_base(base: int, cycles: list[list[float]]) -> None:
    assert max(base // 2, 1) <= after(base, cycles) <= 2 * base


@given(BASES, WHOLE, UNITS)
def test_the_unit_of_the_loss_does_not_matter(base: int, cycles: list[list[float]], unit: float) -> None:
    assert after(base, cycles) == after(base, [[unit * value for value in cycle] for cycle in cycles])


@given(CYCLES)
def test_zero_keeps_micro_corrections_off_and_fixed_keeps_the_base(cycles: list[list[float]]) -> None:
    assert after(0, cycles) == 0
    fixed = CorrectionSchedule(15)
    for residuals in cycles:
        fixed.update(residuals)
    assert fixed.interval == 15


def test_errors_like_the_first_jumps_keep_the_base() -> None:
    assert after(15, [[0.1, -0.1]] * 5) == 15


def test_small_errors_lengthen_and_large_ones_shorten_it() -> None:
    first = [0.1, -0.1]
    intervals = [after(15, [first] + [[0.0]] * n) for n in range(40)]
    assert intervals == sorted(intervals)
    assert intervals[-1] > 28
    intervals = [after(15, [first] + [[0.5]] * n) for n in range(40)]
    assert intervals == sorted(intervals, reverse=True)
    assert intervals[-1] == 7


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_residuals_that_are_not_finite_are_left_out(bad: float) -> None:
    assert after(15, [[0.1], [bad]]) == 15
    assert after(15, [[bad], [0.1], [0.1, bad]]) == 15


def test_state_round_trip() -> None:
    one, other = CorrectionSchedule(15, "adaptive"), CorrectionSchedule(15, "adaptive")
    one.update([0.1])
    one.update([0.9])
    other.load_state_dict(one.state_dict())
    for each in (one, other):
        each.update([0.5])
    assert other.interval == one.interval < 15


def trained(schedule: str) -> tuple[HybridTrainer, list[Segment]]:
    problem = Problem()
    config = HybridConfig(
        warmup_steps=40,
        max_predict_steps=40,
        correction_interval=8,
        correction_schedule=schedule,
        confidence_threshold=0.01,
        horizon_rule="fixed",
    )
    trainer = HybridTrainer(problem.model, problem.optimizer, config, loss_fn=problem.loss)
    trainer.run(problem.batch, 900)
    return trainer, [segment for segment in trainer.trace() if segment.phase == "predict"]


def test_the_trainer_probes_at_the_adaptive_interval_and_says_so() -> None:
    trainer, jumps = trained("adaptive")
    intervals = {jump.interval for jump in jumps}
    assert len(intervals) > 1
    assert intervals <= set(range(4, 17))
    assert all(jump.corrections == jump.length // jump.interval for jump in jumps)
    assert trainer.tally.micro_corrections == sum(jump.corrections for jump in jumps)
    _, same = trained("adaptive")
    assert same == jumps
    assert {jump.interval for jump in trained("fixed")[1]} == {8}
