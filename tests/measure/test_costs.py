"""Unit costs: what counted work comes to, and that measuring meets every kind of work."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.toy import Toy

from hybrid_sweep.measure.costs import COST_NAMES, FIELD_OF, UnitCosts, measure_unit_costs
from hybrid_sweep.spec import UnitCosts as SpecUnitCosts
from hybrid_sweep.trainer import HybridConfig
from hybrid_sweep.trainer.costs import Work

COSTS = UnitCosts(batch=1, plain_step=10, observe=100, update=1e3, jump=1e4, forward=1e5, score=1e6)
NAMED = {"batch": 1, "plain": 2, "observe": 3, "update": 4, "jump": 5, "forward": 6, "score": 7}


def test_total_adds_up_calls_times_seconds():
    assert COSTS.total({kind: NAMED[kind] for kind in Work}) == 7_654_321


@given(st.fixed_dictionaries({kind: st.integers(0, 10**6) for kind in Work}), st.sampled_from(list(Work)))
def test_one_unit_more_costs_its_price_more(calls, kind):
    more = calls | {kind: calls[kind] + 1}
    assert COSTS.total(more) - COSTS.total(calls) == COSTS.to_dict()[FIELD_OF[kind]]


def test_every_kind_of_work_has_a_price_that_a_sweep_file_can_freeze():
    assert set(FIELD_OF) == set(Work)
    assert set(FIELD_OF.values()) == set(COST_NAMES) == set(SpecUnitCosts.model_fields)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"correct_steps": 0, "confidence_threshold": 0.999, "minimum_cosine": 0.9},
        {"correction_interval": 5, "horizon_rule": "seed", "stop_fraction": 0.5, "guard_tolerance": 1.01},
    ],
)
def test_measuring_meets_every_kind_of_work_whatever_the_sweep_fixes(settings):
    costs = measure_unit_costs(Toy(), 0, HybridConfig(max_predict_steps=30, **settings))
    assert all(seconds > 0 for seconds in costs.to_dict().values())
