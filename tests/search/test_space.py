import random
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybrid_sweep.errors import UserError
from hybrid_sweep.search.space import config_hash, grid
from hybrid_sweep.spec.files import load_spec
from hybrid_sweep.spec.sweep import SweepSpec
from hybrid_sweep.trainer.config import HybridConfig


def sweep(space, trainer=None):
    return SweepSpec(name="x", workload="a.b:C", space=space, trainer=trainer or {})


def test_grid60_is_the_grid_of_the_seed():
    points = grid(load_spec("grid60"))
    configs = [point.config for point in points]
    assert len(points) == len({config_hash(config) for config in configs}) == 60
    assert {c["max_predict_steps"] for c in configs} == {50, 75, 100, 150}
    assert {c["correction_interval"] for c in configs} == {0, 10, 15, 20, 25}
    assert {c["confidence_threshold"] for c in configs} == {0.40, 0.60, 0.85}
    assert all((c["warmup_steps"], c["full_steps"]) == (100, 20) for c in configs)
    ids = [point.trial_id for point in points]
    assert (ids[0], ids[-1]) == ("H050_I00_C0.40", "H150_I25_C0.85")
    assert "H075_I15_C0.60" in ids


def test_grid60_upstream_is_the_grid_of_the_rust_example():
    configs = [point.config for point in grid(load_spec("grid60_upstream"))]
    assert len(configs) == 60
    assert {c["max_predict_steps"] for c in configs} == {30, 50, 75, 100}
    assert {c["correction_interval"] for c in configs} == {0, 5, 10, 15, 20}
    assert {c["confidence_threshold"] for c in configs} == {0.55, 0.60, 0.65}


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        ({}, "H080_I00_C0.85"),
        ({"max_predict_steps": [1000]}, "H1000_I00_C0.85"),
        ({"confidence_threshold": [0.605]}, "H080_I00_C0.605"),
        ({"divergence_threshold": [2.2]}, "H080_I00_C0.85_D2.20"),
        ({"warmup_steps": [50], "gates": ["off"]}, "H080_I00_C0.85_gates=off_warmup_steps=50"),
    ],
)
def test_trial_ids_spell_what_is_swept(space, expected):
    assert grid(sweep(space))[0].trial_id == expected


def test_a_value_out_of_range_is_named_with_its_range():
    with pytest.raises(UserError, match=r"confidence_threshold=2 .*> 0, < 1"):
        grid(sweep({"confidence_threshold": [0.5, 2]}))
    with pytest.raises(UserError, match=r"warmup_steps='no' .*>= 1"):
        grid(sweep({}, {"warmup_steps": "no"}))


def test_a_grid_that_no_one_could_run_is_refused_before_it_is_listed():
    many, few = list(range(1, 101)), list(range(1, 12))
    space = {"max_predict_steps": many, "correction_interval": many, "correct_steps": few}
    with pytest.raises(UserError, match="the grid has 110,000 points, and at most 100,000"):
        grid(sweep(space))


def test_values_that_are_one_configuration_are_refused():
    with pytest.raises(UserError, match=r"2 points .*H080_I00_C0\.60"):
        grid(sweep({"confidence_threshold": [0.6, "0.6"]}))


SPACES = st.fixed_dictionaries(
    {},
    optional={
        "max_predict_steps": st.lists(st.integers(1, 2000), min_size=1, max_size=4, unique=True),
        "correction_interval": st.lists(st.integers(0, 200), min_size=1, max_size=4, unique=True),
        "confidence_threshold": st.lists(
            st.floats(0, 1, exclude_min=True, exclude_max=True), min_size=1, max_size=4, unique=True
        ),
        "divergence_threshold": st.lists(st.floats(0.1, 100), min_size=1, max_size=3, unique=True),
        "cycle_mode": st.lists(st.sampled_from(["original", "chained"]), min_size=1, unique=True),
        "stop_fraction": st.lists(st.floats(0, 0.5), min_size=1, max_size=3, unique=True),
    },
)


@given(SPACES)
def test_a_grid_is_the_whole_product_with_ids_that_are_unique_and_fit_for_a_file_name(space):
    points = grid(sweep(space))
    size = 1
    for values in space.values():
        size *= len(values)
    assert len(points) == len({point.trial_id for point in points}) == size
    for point in points:
        assert re.fullmatch(r"[A-Za-z0-9_.=+-]+", point.trial_id)
        assert point.config.keys() == space.keys()
        assert all(point.config[name] in values for name, values in space.items())
        assert HybridConfig(**point.config)


@given(
    st.dictionaries(st.text(), st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text())
)
def test_a_hash_does_not_depend_on_the_order_of_the_keys(config):
    items = list(config.items())
    random.Random(0).shuffle(items)
    assert config_hash(dict(items)) == config_hash(config)


def test_a_hash_depends_on_the_values_and_not_on_how_a_number_is_written():
    assert config_hash({"a": 1}) == config_hash({"a": 1.0})
    assert config_hash({"a": 1}) != config_hash({"a": 2})
    assert config_hash({"a": 1}) != config_hash({"b": 1})
    assert config_hash({"a": True}) != config_hash({"a": 1})
    assert config_hash({"a": "1"}) != config_hash({"a": 1})


def test_the_space_is_enumerated_without_torch_and_ray():
    code = (
        "import sys; from hybrid_sweep.search.space import grid;"
        "from hybrid_sweep.spec.files import load_spec;"
        "grid(load_spec('grid60')); sys.exit(bool({'torch', 'ray', 'pandas'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_id_of_many_settings_has_a_length_and_stays_unique():
    many = ["predictor_hidden_size", "predictor_members", "bptt_steps", "full_steps", "predictor_seed"]
    others = {"gates": ["off"], "tail": ["average"], "predictor": ["ema_nesterov"], "max_rollbacks": [7]}
    wordy = {
        "correction_schedule": ["fixed"],
        "confidence_rule": ["three_term"],
        "minimum_cosine": [0.1 + 0.2],
    }
    points = grid(sweep({**others, **wordy, **{name: [4, 8] for name in many}}))
    ids = {point.trial_id for point in points}
    assert len(ids) == 32
    assert all(len(name) == 180 and re.fullmatch(r"H\d{3}_.*_[0-9a-f]{16}", name) for name in ids)
