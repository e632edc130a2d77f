"""Targets of the weight-delta head: more where the slope was left uphill, less where it was overshot."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybrid_sweep.trainer.gating import (
    LIMIT,
    OVERSHOOT,
    RISE,
    STEEPEST,
    gate_targets,
    literal_targets,
)
from hybrid_sweep.trainer.predictors import Realised

GATES = st.floats(0.01, LIMIT)
RATIOS = st.floats(-50, 50)


def realised(*ratios):
    return Realised(ratios=ratios)


def gates(targets):
    """Size times group: what each group would really get."""
    return [targets.size * group for group in targets.groups]


class TestGateTargets:
    def test_a_jump_that_landed_at_the_wanted_slope_is_repeated(self):
        assert gates(gate_targets([0.5, 0.8], realised(-OVERSHOOT, -OVERSHOOT))) == pytest.approx([0.5, 0.8])

    def test_down_at_once(self):
        """On a quadratic whose slope reached −3 at gate 1, slope −OVERSHOOT lies at (1 + OVERSHOOT) / 4."""
        assert gates(gate_targets([1.0], realised(-3.0))) == pytest.approx([min((1 + OVERSHOOT) / 4, 1.0)])

    def test_up_by_a_share_of_the_way(self):
        aim = 0.4 * (1 + OVERSHOOT) / 0.5
        assert gates(gate_targets([0.4], realised(0.5))) == pytest.approx([0.4 + RISE * (aim - 0.4)])

    def test_a_slope_that_hardly_changed_or_grew_has_a_limit(self):
        assert gate_targets([1.0], realised(5.0)) == gate_targets([1.0], realised(STEEPEST))
        assert gates(gate_targets([LIMIT], realised(5.0))) == [LIMIT]

    @given(st.lists(st.tuples(GATES, RATIOS), min_size=1, max_size=8))
    def test_always_within_what_the_head_can_say(self, groups):
        used, ratios = zip(*groups, strict=True)
        targets = gate_targets(used, realised(*ratios))
        assert 0 <= targets.size <= LIMIT
        assert all(0 <= group <= LIMIT for group in targets.groups)

    @given(GATES, RATIOS, RATIOS)
    def test_the_more_it_overshot_the_less_it_gets(self, used, one, other):
        low, high = sorted((one, other))
        assert gates(gate_targets([used], realised(low))) <= gates(gate_targets([used], realised(high)))

    def test_a_group_that_hardly_moves_does_not_scale_the_rest(self):
        """Its realised ratio is rounding error: a bias before BatchNorm, say."""
        for noise in (-40.0, 0.9):
            found = Realised(ratios=(-1.0, noise), weights=(1.0, 1e-14))
            assert gate_targets([0.5, 0.5], found).size == pytest.approx(
                0.5 + RISE * (0.5 * (1 + OVERSHOOT) / 2 - 0.5)
            )


class TestLiteralTargets:
    def test_the_realised_gates_clamped(self):
        targets = literal_targets(realised(0.7, -0.3, 9.0))
        assert targets.size == 1.0
        assert targets.groups == (0.7, 0.0, LIMIT)
