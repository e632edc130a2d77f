"""Cells that hold JSON, and the manifest: of any form a sentence, never a traceback."""

import json

import pytest

from hybrid_sweep.analysis.cells import bins_in, settings_in
from hybrid_sweep.errors import UserError
from hybrid_sweep.store.folder import SweepFolder


def test_what_a_sweep_writes_is_read():
    assert settings_in('{"a": 1}') == {"a": 1}
    assert bins_in("[[3, 0.5, 1.0]]") == [[3.0, 0.5, 1.0]]
    assert (settings_in(""), settings_in(None), bins_in("")) == ({}, {}, [])


@pytest.mark.parametrize("text", ["[]", "1", '"x"', "{", "[" * 400, 7, {"a": 1}, '{"a": \ud800}'])
def test_settings_of_another_form_are_refused(text):
    with pytest.raises(UserError, match="the journal is corrupt: H5 has no readable config"):
        settings_in(text, "H5")


@pytest.mark.parametrize(
    "text", ["{}", "[1]", "[[1, 2]]", '[["x", 1, 2]]', "[[1, 2, 3, 4]]", "[[1e999999, null, 1]]"]
)
def test_bins_of_another_form_are_refused(text):
    with pytest.raises(UserError, match="H5 has no readable reliability table"):
        bins_in(text, "H5")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("created", "yesterday"),
        ("created", 7),
        ("hypervolume_reference", {"speedup": "fast"}),
        ("hypervolume_reference", {"speedup": 10**400}),
        ("seeds", [1.5]),
        ("seeds", "0"),
        ("steps", -1),
        ("steps", 2**70),
        ("unit_costs", {"batch": "free"}),
        ("spec", []),
        ("spec", {"space": []}),
        ("spec", {"repeats": "many"}),
        ("budget", True),
        ("sweep_id", None),
        ("keep_models", 1),
    ],
    ids=str,
)
def test_a_manifest_of_another_form_is_refused_by_the_field(tmp_path, name, value):
    folder = SweepFolder.create(tmp_path / "results")
    (folder.path / "manifest.json").write_text(json.dumps({"sweep_id": "x", name: value}))
    with pytest.raises(UserError, match=rf"manifest\.json is corrupt \({name}"):
        SweepFolder.open(folder.path)
