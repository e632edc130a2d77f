from pathlib import Path

import pytest

from hybrid_sweep.errors import UserError
from hybrid_sweep.spec.files import load_spec, packaged_sweeps, parse_changes
from hybrid_sweep.spec.sweep import SweepSpec, UnitCosts

MINIMAL = "workload: some.module:Net\nspace: {max_predict_steps: [50, 75]}\n"


def file(folder: Path, text: str, name: str = "mine.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_the_packaged_sweeps_load():
    assert packaged_sweeps() == ["explore", "grid60", "grid60_upstream", "quick", "rates", "regression"]
    for name in packaged_sweeps():
        assert load_spec(name).name == name
        assert load_spec(name).about


def test_grid60_is_the_recipe_of_the_seed():
    spec = load_spec("grid60")
    assert (spec.steps, spec.seeds) == (2345, [0])
    assert spec.workload.name == "trainables.mnist_mlp:MnistMlp"
    assert spec.workload.keywords == {"data": "bundled", "lr": 0.01, "batch_size": 128}
    assert spec.trainer == {"warmup_steps": 100, "full_steps": 20}
    assert spec.hypervolume_reference.pair == (1.0, 0.90)


def test_a_file_of_the_user_needs_a_workload_and_little_else(tmp_path):
    spec = load_spec(file(tmp_path, MINIMAL))
    assert (spec.name, spec.steps, spec.device, spec.timing) == ("mine", None, "auto", "measured")
    assert spec.speedup_column == "speedup"


def test_a_spec_survives_the_manifest():
    spec = load_spec(
        "grid60",
        {"unit_costs": dict.fromkeys(UnitCosts.model_fields, 0.1)},
    )
    assert SweepSpec(**spec.model_dump(mode="json")) == spec


def test_overrides_reach_every_field():
    spec = load_spec(
        "grid60",
        {
            "steps": "500",
            "workload.lr": "1e-3",
            "space.max_predict_steps": "[10, 20]",
            "trainer.gates": "off",
            "trainer.warmup_steps": 7,
            "hypervolume_reference.quality": "0.8",
            "timing": "counted",
            "seed": 4,
            "repeats": "3",
        },
    )
    assert spec.steps == 500
    assert spec.workload.keywords["lr"] == 0.001
    assert spec.space["max_predict_steps"] == [10, 20]
    assert spec.trainer == {"warmup_steps": 7, "full_steps": 20, "gates": "off"}
    assert spec.hypervolume_reference.pair == (1.0, 0.8)
    assert spec.speedup_column == "speedup_counted"
    assert spec.seeds == [4, 5, 6]


def test_a_section_that_is_not_in_the_file_can_be_set(tmp_path):
    path = file(tmp_path, MINIMAL)
    assert load_spec(path, {"trainer.full_steps": "9"}).trainer == {"full_steps": 9}
    assert load_spec(path, {"workload.lr": "3"}).workload.keywords == {"lr": 3}


def test_replacing_the_workload_drops_its_keywords():
    assert load_spec("grid60", {"workload": "other.module:Net"}).workload.keywords == {}


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        ({"steps": "abc"}, ["steps='abc'", ">= 1"]),
        ({"steps": "0"}, ["steps=0", ">= 1"]),
        ({"steps": "2.5"}, ["steps=2.5", ">= 1"]),
        ({"seed": "true"}, ["seed=True", ">= 0"]),
        ({"stepz": "1"}, ["'stepz'", "did you mean 'steps'", "workload"]),
        ({"steps.x": "1"}, ["'steps.x'", "single value"]),
        ({"max_predict_steps": "5"}, ["trainer.max_predict_steps=VALUE", "space.max_predict_steps=[VALUE"]),
        ({"space.horizon": "[5]"}, ["'space.horizon'", "space.max_predict_steps"]),
        ({"space.gates.x": "[5]"}, ["'space.gates.x'"]),
        ({"trainer.horizon": "5"}, ["'trainer.horizon'", "trainer.max_predict_steps"]),
        ({"unit_costs.backward": "5"}, ["'unit_costs.backward'", "unit_costs.plain_step"]),
        ({"unit_costs.plain_step": "5"}, ["unit_costs.batch is missing"]),
        ({"space.max_predict_steps": "75"}, ["space.max_predict_steps=75", "list"]),
        ({"space.max_predict_steps": "[]"}, ["space.max_predict_steps=[]", "list"]),
        ({"space.max_predict_steps": "[75, 75]"}, ["75 twice"]),
        ({"trainer.max_predict_steps": "75"}, ["both in trainer and in space"]),
        ({"trainer": "{horizon: 3}"}, ["'horizon'", "max_predict_steps"]),
        ({"device": "tpu"}, ["device='tpu'", "'cuda'"]),
        ({"compile": "fast"}, ["compile='fast'", "'none', 'default' or 'reduce-overhead'"]),
        ({"compile": "default", "pack": "auto"}, ["compile=default", "pack=auto", "compile=none or pack=1"]),
        ({"pack": "0"}, ["pack=0", "at least 1, or auto"]),
        ({"pack": "some"}, ["pack='some'", "at least 1, or auto"]),
        ({"gpus_per_trial": "2"}, ["gpus_per_trial=2", "> 0", "<= 1"]),
        ({"hypervolume_reference.speedup": "x"}, ["hypervolume_reference.speedup='x'", ">= 0"]),
        ({"workload": "3"}, ["workload=3", "package.module:Class"]),
        ({"steps": "[1"}, ["steps='[1'", "line 1"]),
        ({"name": "a/b"}, ["name='a/b'", "folder"]),
    ],
)
def test_a_mistake_is_answered_with_field_value_and_what_is_allowed(overrides, parts):
    with pytest.raises(UserError) as caught:
        load_spec("grid60", overrides)
    assert all(part in str(caught.value) for part in parts), caught.value
    assert "\n" not in str(caught.value)


def test_an_unknown_sweep_lists_the_packaged_ones():
    with pytest.raises(UserError, match=r"grid6.*did you mean 'grid60'.*grid60_upstream, quick.*\.yaml"):
        load_spec("grid6")


def test_a_missing_file_is_named():
    with pytest.raises(UserError, match=r"no sweep file nowhere.yaml.*quick"):
        load_spec("nowhere.yaml")


@pytest.mark.parametrize("field", ["about: *a4", "space: {gates: [*a4, *a4]}", "space: {gates: [*a4]}"])
def test_a_value_that_anchors_make_huge_is_shortened_in_the_sentence(tmp_path, field):
    anchors = "".join(f"  a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 5))
    workload = f"workload:\n  name: some.module:Net\n  a0: &a0 {list(range(10))}\n{anchors}"
    with pytest.raises(UserError, match=r"about=|gates=") as error:
        load_spec(file(tmp_path, f"{workload}{field}\n"))
    assert len(str(error.value)) < 2000


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just a text"])
def test_a_file_that_is_no_sweep_is_refused(tmp_path, text):
    with pytest.raises(UserError, match=r"mine\.yaml is not a sweep"):
        load_spec(file(tmp_path, text))


def test_an_error_in_a_file_names_the_file_and_the_line(tmp_path):
    with pytest.raises(UserError, match=r"mine\.yaml, line 2: "):
        load_spec(file(tmp_path, "workload: a.b:C\nspace: a: b\n"))
    with pytest.raises(UserError, match=r"mine\.yaml: unknown key 'spaces'"):
        load_spec(file(tmp_path, "workload: a.b:C\nspaces: {}\n"))
    with pytest.raises(UserError, match=r"mine\.yaml: workload is missing"):
        load_spec(file(tmp_path, "space: {}\n"))


def test_a_file_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="cannot be read as a sweep file"):
        load_spec(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [("mask.eta_lambda", 1.9), ("constraints.min_quality", 0.5), ("early_stopping.reduction", 4.0)],
)
def test_a_field_of_a_section_can_be_changed(key, value):
    section, field = key.split(".")
    assert getattr(getattr(load_spec("explore", {key: value}), section), field) == value
    with pytest.raises(UserError, match=rf"unknown key '{section}.colour'.*known: {section}\."):
        load_spec("explore", {f"{section}.colour": 1})


def test_a_workload_file_is_found_beside_the_sweep_file(tmp_path, monkeypatch):
    (tmp_path / "sub").mkdir()
    file(tmp_path / "sub", "", "net.py")
    path = file(tmp_path / "sub", MINIMAL.replace("some.module:Net", "net.py:Net"))
    monkeypatch.chdir(tmp_path)
    located = f"{(tmp_path / 'sub' / 'net.py').resolve()}:Net"
    assert load_spec("sub/mine.yaml").workload.name == located
    assert load_spec(path, {"workload.lr": "1"}).workload.name == located


def test_a_workload_file_given_as_an_override_is_found_in_the_current_folder(tmp_path, monkeypatch):
    file(tmp_path, "", "net.py")
    monkeypatch.chdir(tmp_path)
    located = f"{(tmp_path / 'net.py').resolve()}:Net"
    assert load_spec("grid60", {"workload": "net.py:Net"}).workload.name == located
    assert load_spec("grid60", {"workload.name": "net.py:Net"}).workload.name == located


def test_changes_are_split_at_the_first_equal_sign():
    assert parse_changes(["a=1", "workload.name=x=y", "a=2"]) == {"a": "2", "workload.name": "x=y"}


@pytest.mark.parametrize("change", ["steps", "=3", " =3"])
def test_a_change_without_a_key_and_a_value_lists_the_keys(change):
    with pytest.raises(UserError, match=r"KEY=VALUE; the keys are about, .*steps.*workload"):
        parse_changes([change])


def test_earlier_names_of_values_are_read_and_told_once(tmp_path, caplog):
    (file := tmp_path / "mine.yaml").write_text(
        "workload: a.b:C\ntrainer: {horizon_rule: seed}\npoints: [{gates: seed}]\nsampler: tpe\n"
        "space: {cycle_mode: [seed, rust], divergence_rule: {values: [seed], when: {cycle_mode: [rust]}}}\n"
    )
    spec = load_spec(file)
    assert spec.trainer == {"horizon_rule": "original"}
    assert spec.points == [{"gates": "original"}]
    assert spec.space["cycle_mode"] == ["original", "chained"]
    assert spec.space["divergence_rule"].values == ["original"]
    assert spec.space["divergence_rule"].when == {"cycle_mode": ["chained"]}
    (said,) = [record.getMessage() for record in caplog.records]
    assert "cycle_mode=rust is chained" in said
    assert "gates=seed is original" in said
    caplog.clear()
    load_spec("explore")
    assert not caplog.records
