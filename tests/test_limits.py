"""Much of anything is refused in one sentence, and what is allowed takes work in proportion."""

import pytest

from hybrid_sweep import limits
from hybrid_sweep.confirm.sweep import confirm_sweep
from hybrid_sweep.errors import UserError
from hybrid_sweep.search.controls import controls
from hybrid_sweep.search.dimensions import nearest, placed
from hybrid_sweep.search.space import grid
from hybrid_sweep.spec.axes import described, validate_conditions, validate_distinct, values_of
from hybrid_sweep.spec.sweep import SweepSpec
from hybrid_sweep.spec.yaml import parse_yaml

MANY = 2000
HALF = [(i / limits.POINTS) ** 2 for i in range(1, limits.POINTS // 2)]


class Counted(float):
    """A number that counts how often it is compared."""

    compared = 0
    __hash__ = float.__hash__

    def __eq__(self, other):
        Counted.compared += 1
        return float(self) == other


def spec(**fields):
    return SweepSpec(name="x", workload="a.b:C", **fields)


@pytest.fixture
def values():
    found = [Counted(i * i) for i in range(MANY)]
    Counted.compared = 0
    yield found
    assert Counted.compared <= 8 * MANY  # a look at all others, for each, would be MANY² / 2


def test_no_value_is_compared_with_all_others(values):
    validate_distinct(values)


def test_a_condition_is_not_compared_with_all_values(values):
    space = spec(
        space={
            "max_predict_steps": [1, 2],
            "warmup_steps": {"values": [1], "when": {"max_predict_steps": [1]}},
        }
    ).space
    long = space["warmup_steps"].model_copy(update={"when": {"max_predict_steps": values[::-1]}})
    validate_conditions({"max_predict_steps": values, "warmup_steps": long})


def test_a_point_finds_its_place_without_a_look_at_the_others(values):
    axis = values_of(values)
    assert [nearest(axis, value) for value in values] == values
    assert [placed({"x": axis}, {"x": value}) for value in values] == [{"x": value} for value in values]


def test_the_first_of_two_equal_ones_is_found_and_what_is_far_from_all_has_a_nearest():
    axis = values_of([3, 1, 2.0, True])
    assert (axis.place(2), axis.place(1.0), axis.place([1]), 7 in axis) == (2, 1, None, False)
    assert (nearest(axis, 2), nearest(axis, 2.9)) == (2.0, 3)


def test_a_long_list_is_allowed_and_told_in_short():
    space = spec(space={"confidence_threshold": HALF}).space
    assert described(space["confidence_threshold"]).endswith(f" and {len(HALF) - 50:,} more")


@pytest.mark.parametrize(
    ("fields", "parts"),
    [
        ({"repeats": 1e8}, ["repeats=100000000", "<= 10000"]),
        ({"trials": 1e9}, ["trials=1000000000", "<= 100000"]),
        ({"tuning_trials": 1e9}, ["tuning_trials=1000000000", "<= 100000"]),
        ({"steps": 10**30}, ["steps=1000", "<= 1000000000"]),
        ({"concurrency": 1e9}, ["concurrency=1000000000", "<= 10000"]),
        ({"pack": 1e9}, ["pack=1000000000", "at most 10000"]),
        ({"points": [{}] * (limits.POINTS + 1)}, ["points=[{}", "at most 100000"]),
        ({"warm_start": ["x"] * (limits.FOLDERS + 1)}, ["warm_start=['x'", "at most 1000"]),
        ({"presets": ["x"] * (limits.FOLDERS + 1)}, ["presets=['x'", "at most 1000"]),
        (
            {"space": {"max_predict_steps": [1] * (limits.POINTS + 1)}},
            ["100,001 values", "100,000", "low, high"],
        ),
        (
            {"space": {"max_predict_steps": {"values": [1] * (limits.POINTS + 1)}}},
            ["values=[1, 1", "at most 100000"],
        ),
        (
            {"space": {"confidence_threshold": {"low": 0.1, "high": 0.9, "step": 1e-300}}},
            ["step=1e-300", "leave the step out"],
        ),
        (
            {"trainer": {"warmup_steps": 10**400}, "space": {"full_steps": [5]}},
            ["warmup_steps=", "<= 1000000000"],
        ),
    ],
)
def test_too_much_is_refused_in_one_short_sentence(fields, parts):
    with pytest.raises(UserError) as refusal:
        spec(**fields)
    text = str(refusal.value)
    assert all(part in text for part in parts), text
    assert "\n" not in text
    assert len(text) < 1000


def test_a_grid_whose_points_no_machine_holds_is_refused():
    half = [(i + 1) / 1000 for i in range(900)]
    names = ("confidence_threshold", "velocity_decay", "stop_fraction", "divergence_threshold")
    with pytest.raises(UserError, match=r"656,100,000,000 points, and at most 100,000"):
        grid(spec(sampler="grid", space=dict.fromkeys(names, half)))


def test_tuning_has_a_limit_that_says_what_to_set():
    with pytest.raises(UserError, match=r"20,000 times.*set tuning_trials"):
        controls(spec(controls="full"), 100, 20_000)
    assert controls(spec(controls="full", tuning_trials=2), 100, 20_000)


def test_no_more_fresh_seeds_are_confirmed_than_a_sweep_may_have(tmp_path):
    with pytest.raises(UserError, match=r"seeds=100000000 .*at most 10000"):
        confirm_sweep(tmp_path, seeds=100_000_000)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x" * (limits.CHARACTERS + 1), "4,000,001 characters"),
        ("[" * 60 + "]" * 60, "more than 50 levels"),
        ("&a [*a]", "more than 50 levels"),
        (
            "a0: &a0 [1]\n"
            + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 20)),
            "1,000,000 values",
        ),
    ],
)
def test_a_text_that_would_fill_the_memory_is_refused_with_its_source(text, said):
    with pytest.raises(UserError, match=f"my.yaml .*{said}") as refusal:
        parse_yaml(text, "my.yaml")
    assert len(str(refusal.value)) < 200


def test_aliases_that_stand_on_fewer_levels_are_read():
    assert parse_yaml("[&a [1, 2], *a, [*a]]", "") == [[1, 2], [1, 2], [[1, 2]]]
