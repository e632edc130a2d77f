"""Axes of a space: what can be drawn from, what contradicts itself, and in which order they exist."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybrid_sweep.errors import UserError
from hybrid_sweep.spec.axes import (
    Choice,
    Range,
    described,
    in_order,
    samples_of,
    validate_conditions,
    values_of,
)
from hybrid_sweep.spec.sweep import SweepSpec


def spec(space, **fields):
    return SweepSpec(name="x", workload="a.b:C", space=space, **fields)


def test_the_three_forms_of_an_axis():
    space = spec(
        {
            "max_predict_steps": [50, 75],
            "confidence_threshold": {"low": 0.4, "high": 0.9},
            "velocity_decay": {"values": [0.9, 0.97], "when": {"predictor": ["ema"]}},
            "predictor": ["ema", "frozen"],
        }
    ).space
    assert space["max_predict_steps"] == [50, 75]
    assert space["confidence_threshold"] == Range(low=0.4, high=0.9)
    assert space["velocity_decay"] == Choice(values=[0.9, 0.97], when={"predictor": ["ema"]})
    assert [values_of(axis) for axis in space.values()] == [[50, 75], None, [0.9, 0.97], ["ema", "frozen"]]
    assert samples_of(space["confidence_threshold"]) == [0.4, 0.9]


def test_a_space_survives_the_manifest():
    one = spec({"max_predict_steps": {"low": 10, "high": 200, "log": True}, "full_steps": [10, 20]})
    assert SweepSpec(**one.model_dump(mode="json")) == one


@pytest.mark.parametrize(
    ("low", "high", "step", "whole"),
    [(1, 9, None, True), (1, 9, 2, True), (1, 9, 0.5, False), (0.0, 1, None, False)],
)
def test_whole_numbers_are_meant_where_all_are_whole(low, high, step, whole):
    assert Range(low=low, high=high, step=step).whole == whole


def test_a_step_as_wide_as_the_range_is_allowed_however_floats_round():
    assert Range(low=0.01, high=0.03, step=0.02).step == 0.02


@pytest.mark.parametrize(
    ("axis", "said"),
    [
        ({"low": 9, "high": 9}, "low=9 is not below high=9"),
        ({"low": 9, "high": 1}, "low=9 is not below high=1: swap or widen them"),
        ({"low": 0, "high": 9, "log": True}, "low=0 has no logarithm"),
        ({"low": 1, "high": 9, "log": True, "step": 2}, "log and step exclude each other"),
        ({"low": 1, "high": 9, "step": 20}, "step=20 is wider than the range from 1 to 9"),
        ({"low": 1, "high": 9, "stepp": 2}, "stepp"),
        ({"low": -5, "high": 9}, "max_predict_steps=-5 is not allowed"),
        ({"low": 1}, "high"),
        ([], "write a list of the values to try"),
        ([5, 5], "it holds 5 twice: remove one"),
        ({"values": [5, 5]}, "it holds 5 twice: remove one"),
        (75, "write a list of the values to try"),
        ({"values": [5], "when": {"full_steps": [1]}}, "depends on 'full_steps', which is no axis"),
    ],
)
def test_an_axis_that_cannot_be_drawn_from_is_refused(axis, said):
    with pytest.raises(UserError, match=said) as error:
        spec({"max_predict_steps": axis})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("space", "said"),
    [
        (
            {"full_steps": {"values": [5], "when": {"predictor": ["emma"]}}, "predictor": ["ema", "frozen"]},
            "it would never exist",
        ),
        (
            {
                "full_steps": [5, 9],
                "correct_steps": {"values": [1], "when": {"warmup_steps": [3]}},
                "warmup_steps": {"low": 1, "high": 9},
            },
            "a range: only a list of values can decide",
        ),
        (
            {
                "full_steps": {"values": [5], "when": {"correct_steps": [1]}},
                "correct_steps": {"values": [1], "when": {"full_steps": [5]}},
            },
            "correct_steps and full_steps depend on each other",
        ),
    ],
)
def test_a_space_that_contradicts_itself_is_refused(space, said):
    with pytest.raises(UserError, match=said):
        spec(space)


@pytest.mark.parametrize("sampler", ["tpe", "grid"])
@pytest.mark.parametrize("values", [[-5, 50], ["many"], [[50]]])
def test_a_listed_value_that_the_trainer_refuses_is_refused_at_once(sampler, values):
    with pytest.raises(UserError, match="max_predict_steps="):
        spec({"max_predict_steps": values}, sampler=sampler)


def test_a_given_point_that_the_trainer_refuses_is_refused_at_once():
    with pytest.raises(UserError, match="max_predict_steps=-5"):
        spec({}, points=[{"max_predict_steps": -5}])


def test_a_grid_needs_plain_lists():
    with pytest.raises(UserError, match="no plain list, so it has no grid"):
        spec({"full_steps": {"low": 5, "high": 9}}, sampler="grid")


@given(st.permutations(["a", "b", "c", "d"]))
def test_each_axis_comes_after_those_that_it_depends_on(names):
    when = {"b": {"a": [1]}, "c": {"b": [1]}, "d": {"a": [1], "c": [1]}}
    space = {name: Choice(values=[1], when=when.get(name, {})) for name in names}
    validate_conditions(space)
    assert in_order(space) == ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("axis", "text"),
    [
        ([50, 75], "50, 75"),
        (Range(low=1, high=9), "1 to 9"),
        (Range(low=1, high=9, log=True), "1 to 9, logarithmic"),
        (Range(low=0.1, high=0.9, step=0.2), "0.1 to 0.9, step 0.2"),
        (
            Choice(values=[5], when={"predictor": ["ema", "frozen"]}),
            "5 (only where predictor is ema or frozen)",
        ),
    ],
)
def test_an_axis_is_described_as_a_reader_would_write_it(axis, text):
    assert described(axis) == text


@pytest.mark.parametrize("spelt", [10, 10.0, 1e1, "1e1", "10.0"])
def test_a_setting_of_whole_numbers_is_drawn_in_whole_numbers_whatever_their_spelling(spelt):
    axis = spec({"max_predict_steps": {"low": 2e1, "high": "100", "step": spelt}}).space["max_predict_steps"]
    assert axis.whole
    assert (axis.low, axis.high, axis.step) == (20, 100, 10)
    assert {type(value) for value in samples_of(axis)} == {int}


@pytest.mark.parametrize("values", [[5e1, 75.0], {"values": [5e1, 75.0]}])
def test_so_are_lists_of_them(values):
    listed = values_of(spec({"max_predict_steps": values}).space["max_predict_steps"])
    assert [(value, type(value)) for value in listed] == [(50, int), (75, int)]


def test_a_setting_of_any_numbers_keeps_its_spelling():
    assert not spec({"divergence_threshold": {"low": 1.0, "high": 5.0}}).space["divergence_threshold"].whole


@pytest.mark.parametrize(
    ("axis", "said"),
    [
        ({"low": 20, "high": 100, "step": 0.5}, "takes whole numbers, and step=0.5 leads between them"),
        ({"low": 20, "high": 100, "step": 2.5}, "write step: 2"),
        ({"low": 20.5, "high": 100}, "max_predict_steps=20.5 is not allowed"),
        ({"low": 20, "high": 100.5}, "max_predict_steps=100.5 is not allowed"),
        ({"low": 20.5, "high": 100.5, "log": True}, "max_predict_steps=20.5 is not allowed"),
        ([50, 75.5], "max_predict_steps=75.5 is not allowed"),
        ({"values": [50, 75.5]}, "max_predict_steps=75.5 is not allowed"),
        ([50, 5e1], "it holds 50.0 twice"),
        ({"low": True, "high": 100}, "low=True is not allowed: write a number"),
        ([True, 100], "max_predict_steps=True is not allowed"),
    ],
)
def test_what_a_setting_cannot_take_is_refused_with_the_file(axis, said):
    with pytest.raises(UserError, match=said):
        spec({"max_predict_steps": axis})


def test_a_range_is_not_drawn_from_where_floats_have_gaps():
    with pytest.raises(UserError, match="list the values"):
        spec({"predictor_seed": {"low": 0, "high": 2**60}})
    assert spec({"predictor_seed": [2**60, 2**60 + 1]}).space["predictor_seed"] == [2**60, 2**60 + 1]


@pytest.mark.parametrize("field", ["steps", "repeats", "trials", "concurrency", "seed", "pack", "eval_every"])
def test_fields_of_the_sweep_take_any_spelling_of_a_whole_number(field):
    assert getattr(spec({}, **{field: 2e1}), field) == 20
    with pytest.raises(UserError, match=f"{field}=20.5 is not allowed"):
        spec({}, **{field: 20.5})
