from math import isclose

import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from support.sweeps import CONDITIONAL, sweep

from hybrid_sweep.search.dimensions import (
    combination,
    count,
    distribution,
    is_whole,
    nearest,
    placed,
    size,
    value_at,
)
from hybrid_sweep.trainer.config import HybridConfig


def axis(value, field="max_predict_steps"):
    return sweep(space={field: value}).space[field]


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("max_predict_steps", [50, 75, 100], IntDistribution(50, 100, step=25)),
        ("max_predict_steps", [100, 50, 75], IntDistribution(50, 100, step=25)),
        ("max_predict_steps", [50, 75, 150], CategoricalDistribution([50, 75, 150])),
        ("max_predict_steps", [50], CategoricalDistribution([50])),
        ("predictor_seed", [2**60, 2**60 + 1], CategoricalDistribution([2**60, 2**60 + 1])),
        ("max_predict_steps", {"values": [50, 75]}, IntDistribution(50, 75, step=25)),
        ("confidence_threshold", [0.4, 0.6, 0.8], FloatDistribution(0.4, 0.8, step=0.2)),
        ("confidence_threshold", [0.4, 0.6, 0.85], CategoricalDistribution([0.4, 0.6, 0.85])),
        ("divergence_threshold", [1 / 3, 2 / 3, 1], CategoricalDistribution([1 / 3, 2 / 3, 1])),
        ("gates", ["learned", "off"], CategoricalDistribution(["learned", "off"])),
        ("max_predict_steps", {"low": 50, "high": 150}, IntDistribution(50, 150)),
        ("max_predict_steps", {"low": 50, "high": 160, "step": 25}, IntDistribution(50, 150, step=25)),
        ("max_predict_steps", {"low": 8, "high": 512, "log": True}, IntDistribution(8, 512, log=True)),
        ("confidence_threshold", {"low": 0.3, "high": 0.9}, FloatDistribution(0.3, 0.9)),
        (
            "confidence_threshold",
            {"low": 0.1, "high": 0.95, "step": 0.1},
            FloatDistribution(0.1, 0.9, step=0.1),
        ),
        ("divergence_threshold", {"low": 1, "high": 2.5}, FloatDistribution(1, 2.5)),
        (
            "divergence_threshold",
            {"low": 1.5, "high": 6.0, "log": True},
            FloatDistribution(1.5, 6.0, log=True),
        ),
    ],
)
@pytest.mark.filterwarnings("error")
def test_what_an_axis_is_drawn_from(field, value, expected):
    assert distribution(axis(value, field)) == expected


def test_a_drawn_value_is_rid_of_the_noise_of_floats():
    assert nearest(axis([0.4, 0.6, 0.8], "confidence_threshold"), 0.4 + 0.2) == 0.6
    steps = axis({"low": 0.1, "high": 0.95, "step": 0.1}, "confidence_threshold")
    assert nearest(steps, 0.1 + 0.1 + 0.1) == value_at(steps, 2) == 0.3
    whole = nearest(axis({"low": 50, "high": 160, "step": 25}), 100.0)
    assert whole == 100
    assert isinstance(whole, int)


def test_how_many_combinations_a_space_has():
    assert (
        size(sweep(space={"max_predict_steps": [1, 2], "full_steps": {"low": 3, "high": 7, "step": 2}}).space)
        == 6
    )
    assert size(sweep().space) is None
    assert size({}) == 1


def test_the_combinations_are_the_whole_product_and_an_axis_is_there_only_where_it_exists():
    space = sweep(space=CONDITIONAL | {"max_predict_steps": [50, 60]}).space
    points = [tuple(combination(space, index).items()) for index in range(size(space))]
    distinct = {dict(point)["gates"]: set() for point in points}
    for point in points:
        distinct[dict(point)["gates"]].add(point)
    assert {gates: len(found) for gates, found in distinct.items()} == {
        "learned": 2 * 7 * 3,
        "original": 2 * 7,
        "off": 2,
    }
    assert all(is_whole(space, dict(point)) for point in points)


def test_where_a_configuration_lies_in_a_space():
    space = sweep(space=CONDITIONAL).space
    inside = HybridConfig(gates="original", max_predict_steps=75, minimum_cosine=0.3).model_dump()
    assert placed(space, inside) == {"gates": "original", "max_predict_steps": 75, "minimum_cosine": 0.3}
    assert is_whole(space, placed(space, inside))
    beside = placed(space, inside | {"max_predict_steps": 1000, "minimum_cosine": 0.31})
    assert beside == {"gates": "original"}
    assert not is_whole(space, beside)
    assert is_whole(space, placed(space, inside | {"gates": "off"}))


NUMBERS = st.integers(1, 10**6)
RANGES = st.one_of(
    st.builds(
        lambda low, n, step: {"low": low, "high": low + n * step + step // 2, "step": step},
        NUMBERS,
        st.integers(1, 50),
        NUMBERS,
    ),
    st.builds(
        lambda low, n, step: {"low": low / 100, "high": (low + n * step) / 100, "step": step / 100},
        st.integers(1, 500),
        st.integers(2, 50),
        st.integers(1, 300),
    ),
)


@given(RANGES)
@pytest.mark.filterwarnings("error")
def test_every_value_of_an_axis_lies_on_it_and_within_its_distribution(value):
    found = axis(value, "divergence_threshold")
    assert count(found) > 1
    drawn_from = distribution(found)
    values = [value_at(found, index) for index in range(count(found))]
    assert values == sorted(set(values))
    assert values[0] == found.low
    assert values[-1] <= found.high
    assert isclose(drawn_from.high, values[-1])
    for listed in values:
        assert nearest(found, listed) == listed
        assert placed({"divergence_threshold": found}, {"divergence_threshold": listed})
