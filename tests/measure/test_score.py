"""The contract's definitions of speedup and quality, on numbers worked out by hand."""

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybrid_sweep.errors import UserError
from hybrid_sweep.measure.costs import COST_NAMES, UnitCosts
from hybrid_sweep.measure.reference import Reference
from hybrid_sweep.measure.score import (
    behaviour,
    compared,
    overhead_pct,
    quality,
    speedup,
    speedup_bound,
    speedup_counted,
)
from hybrid_sweep.trainer.cost_meter import PlainSteps, Work
from hybrid_sweep.trainer.state import Segment

NOTHING = dict.fromkeys(Work, 0)
REFERENCE = Reference(seed=0, steps=[0, 50, 100], val_loss=[2.4, 1.0, 0.4], val_metric=[0.1, 0.8, 0.95])


def plain(count, each):
    return PlainSteps(count, count * each, each, 0.0)


class TestSpeedup:
    def test_wall_clock_is_n_plain_steps_over_all_training_time(self):
        assert speedup(100, plain(20, 1.0), 25.0) == pytest.approx(100 * 1.0 / 25.0)

    def test_what_happened_once_counts_once_on_both_sides(self):
        stalled = PlainSteps(20, seconds=20.0 + 5.0, mean=1.0, loading_share=0.0)
        assert speedup(100, stalled, 30.0) == pytest.approx((100 * 1.0 + 5.0) / 30.0)

    @given(st.integers(1, 10**4), st.floats(1e-6, 10), st.floats(0, 100))
    def test_plain_training_is_not_faster_whatever_a_batch_costs(self, steps, step, batch):
        assert speedup(steps, plain(steps, step + batch), steps * (step + batch)) == pytest.approx(1.0)

    def test_a_run_without_a_plain_step_has_none(self):
        assert speedup(10, PlainSteps(0, 0.0, 0.0, 0.0), 1.0) == 0.0

    def test_counted_is_the_same_of_counts_and_frozen_costs(self):
        costs = UnitCosts(
            batch=0.1,
            plain_step=1.0,
            observe=0.05,
            update=0.5,
            checkpoint=0.2,
            jump=0.1,
            forward=0.3,
            score=0.01,
        )
        calls = {
            Work.BATCH: 25,
            Work.PLAIN: 20,
            Work.OBSERVE: 20,
            Work.UPDATE: 2,
            Work.CHECKPOINT: 1,
            Work.JUMP: 3,
            Work.FORWARD: 5,
            Work.SCORE: 5,
        }
        assert speedup_counted(100, calls, costs) == pytest.approx(
            100 * 1.1 / (2.5 + 20 + 1 + 1 + 0.2 + 0.3 + 1.5 + 0.05)
        )

    @given(st.integers(1, 10**5), st.floats(1e-6, 1e3), st.floats(0, 1e3))
    def test_training_that_is_plain_and_nothing_else_is_not_faster(self, steps, plain_step, batch):
        costs = UnitCosts(**dict.fromkeys(COST_NAMES, 1.0) | {"plain_step": plain_step, "batch": batch})
        calls = NOTHING | {Work.PLAIN: steps, Work.BATCH: steps}
        assert speedup_counted(steps, calls, costs) == pytest.approx(1.0)

    def test_bound_with_a_forward_on_every_predicted_step(self):
        """Backward costs twice a forward (r=2), 22 % of the steps have one: 2.08 and not 4.5."""
        forward, step = 1.0, 3.0
        assert speedup_bound(100, 22, 78, step, forward) == pytest.approx(2.08, abs=0.005)

    def test_bound_where_predicted_steps_are_free(self):
        assert speedup_bound(100, 22, 0, 3.0, 1.0) == pytest.approx(1 / 0.22)

    @given(st.integers(1, 1000), st.integers(0, 1000), st.floats(0.01, 1.0))
    def test_no_trainer_beats_its_bound(self, backward, forward_only, forward):
        steps = backward + forward_only
        seconds = backward + forward_only * forward
        bound = speedup_bound(steps, backward, forward_only, 1.0, forward)
        assert speedup(steps, plain(backward, 1.0), seconds) == pytest.approx(bound)
        assert speedup(steps, plain(backward, 1.0), seconds + 0.5) < bound

    def test_overhead_is_the_predictors_own_share(self):
        own = {Work.OBSERVE: 1.0, Work.UPDATE: 2.0, Work.CHECKPOINT: 2.0, Work.JUMP: 1.0, Work.SCORE: 4.0}
        assert overhead_pct(NOTHING | own | {Work.PLAIN: 80.0, Work.BATCH: 5.0, Work.FORWARD: 5.0}) == 10.0


class TestQuality:
    def test_the_seeds_own_number(self):
        ended = Reference(seed=0, steps=[0, 10], val_loss=[2.3, 0.234], val_metric=None)
        assert quality("loss_ratio", ended, 10, 0.235, None) == pytest.approx(0.99574, abs=5e-6)

    def test_loss_ratio_at_the_same_step_and_at_another_one(self):
        assert quality("loss_ratio", REFERENCE, 100, 0.5, 0.9) == pytest.approx(0.8)
        assert quality("loss_ratio", REFERENCE, 50, 0.5, 0.9) == pytest.approx(2.0)

    def test_accuracy_ratio(self):
        assert quality("accuracy_ratio", REFERENCE, 100, 9.9, 0.76) == pytest.approx(0.8)
        assert quality("accuracy_ratio", REFERENCE, 50, 9.9, 0.76) == pytest.approx(0.95)

    def test_whatever_is_right_at_all_is_infinitely_better_than_what_never_is(self):
        assert compared("accuracy_ratio", (1.0, 0.5), (2.0, 0.0), 1.0) == inf
        assert compared("accuracy_ratio", (1.0, 0.0), (2.0, 0.0), 1.0) == 0.0

    def test_loss_gap_in_units_of_what_the_reference_gained(self):
        assert quality("loss_gap", REFERENCE, 100, 0.5, None) == pytest.approx(0.95)
        below = Reference(seed=0, steps=[0, 10], val_loss=[1.0, -1.0], val_metric=None)
        assert quality("loss_gap", below, 10, -0.8, None) == pytest.approx(0.9)

    @pytest.mark.parametrize("kind", ["loss_ratio", "accuracy_ratio", "loss_gap"])
    def test_the_reference_itself_is_exactly_one(self, kind):
        assert quality(kind, REFERENCE, 100, 0.4, 0.95) == 1.0

    @pytest.mark.parametrize("kind", ["loss_ratio", "accuracy_ratio", "loss_gap"])
    @pytest.mark.parametrize("loss", [float("nan"), float("inf")])
    def test_a_loss_that_is_no_number_is_worth_nothing(self, kind, loss):
        assert quality(kind, REFERENCE, 100, loss, 0.9) == 0.0

    @pytest.mark.parametrize("loss", [0.0, -0.2])
    def test_a_ratio_of_a_loss_that_is_not_above_zero_is_refused_and_not_called_bad(self, loss):
        with pytest.raises(UserError, match=r'not above 0, so no ratio.*quality = "loss_gap"'):
            quality("loss_ratio", REFERENCE, 100, loss, None)
        assert quality("loss_gap", REFERENCE, 100, loss, None) > 1

    @pytest.mark.parametrize("kind", ["loss_ratio", "loss_gap"])
    @given(losses=st.tuples(st.floats(1e-3, 1e3), st.floats(1e-3, 1e3)))
    def test_a_lower_loss_is_never_worse(self, kind, losses):
        low, high = sorted(losses)
        assert quality(kind, REFERENCE, 100, low, None) >= quality(kind, REFERENCE, 100, high, None)


def test_behaviour_is_the_sequence_of_phases_lengths_and_corrections():
    trace = [Segment("full", 20, 0), Segment("predict", 60, 4)]
    assert behaviour(trace) == behaviour(list(trace))
    assert len({behaviour(trace), behaviour(trace[:1]), behaviour(trace[::-1])}) == 3
    assert behaviour(trace) != behaviour([trace[0], Segment("predict", 60, 3)])


class TestMetric:
    """A metric of any name and direction, by its ratio or its gap."""

    ENDED = Reference(seed=0, steps=[0, 100], val_loss=[2.0, 1.0], val_metric=[0.5, 0.8])

    @pytest.mark.parametrize(
        ("kind", "metric", "expected"),
        [
            ("max_ratio", 0.88, 1.1),
            ("min_ratio", 0.4, 2.0),
            ("max_gap", 0.83, 1.1),  # 0.03 better, of the 0.3 that plain training gained
            ("max_gap", 0.77, 0.9),
        ],
    )
    def test_more_is_better_in_its_direction(self, kind, metric, expected):
        assert quality(kind, self.ENDED, 100, 9.9, metric) == pytest.approx(expected)

    def test_a_gap_of_a_metric_that_is_to_be_small(self):
        falls = Reference(seed=0, steps=[0, 100], val_loss=[2.0, 1.0], val_metric=[5.0, -5.0])
        assert quality("min_gap", falls, 100, 9.9, -6.0) == pytest.approx(1.1)
        assert quality("min_gap", falls, 100, 9.9, -4.0) == pytest.approx(0.9)

    @pytest.mark.parametrize("kind", ["max_ratio", "min_ratio", "max_gap", "min_gap"])
    def test_a_metric_that_is_no_number_or_a_lost_run_is_worth_nothing(self, kind):
        assert quality(kind, self.ENDED, 100, 1.0, float("nan")) == 0.0
        assert quality(kind, self.ENDED, 100, float("inf"), 0.0) == 0.0
        assert quality(kind, self.ENDED, 100, 1.0, None) == 0.0

    def test_a_perfect_metric_to_be_small_has_no_ratio(self):
        with pytest.raises(UserError, match="metric 0 is not above 0, so no ratio"):
            quality("min_ratio", self.ENDED, 100, 1.0, 0.0)
