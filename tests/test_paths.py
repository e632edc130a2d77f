"""Paths as users mean them, and none that leads out of a results folder."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import toy

from hybrid_sweep import limits
from hybrid_sweep.errors import UserError
from hybrid_sweep.measure.cache import Cache
from hybrid_sweep.paths import text_of, user_path, validate_identifier
from hybrid_sweep.search.storage import StorageView
from hybrid_sweep.spec.files import load_spec
from hybrid_sweep.spec.sweep import SweepSpec
from hybrid_sweep.store.atomic import write_text
from hybrid_sweep.store.folder import FILES, FOLDERS, SweepFolder
from hybrid_sweep.trainer.config import HybridConfig
from hybrid_sweep.workload import load_workload, travelling


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture(autouse=True)
def no_folder_of_that_name(tmp_path: Path):
    yield
    assert not list(tmp_path.rglob("~*"))


def test_the_home_folder_stands_for_a_tilde(home: Path) -> None:
    assert user_path("~/a") == home / "a"
    assert user_path("a/~") == Path("a/~")


def test_without_a_home_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="begins with ~, and no such home folder is known: write the whole"):
        user_path("~no-such-user-here/results")


def test_results_folders(home: Path) -> None:
    SweepFolder.create("~/results")
    assert SweepFolder.open("~/results").path == home / "results"
    (home / "results" / "file").touch()
    with pytest.raises(UserError, match="exists already"):
        SweepFolder.validate_free(Path("~/results"))


def test_files_that_are_written_and_read(home: Path) -> None:
    write_text(Path("~/config.json"), HybridConfig(full_steps=7).to_json())
    assert HybridConfig.load("~/config.json").full_steps == 7


def test_sweep_files_and_the_workload_in_them(home: Path) -> None:
    (home / "w.py").write_text(Path(toy.__file__).read_text())
    (home / "mine.yaml").write_text(
        "workload: ~/w.py:Toy\nspace: {max_predict_steps: [5]}\nwarm_start: [~/old]"
    )
    spec = load_spec("~/mine.yaml")
    assert spec.workload.name == f"{home}/w.py:Toy"
    assert spec.warm_start == [str(home / "old")]
    assert load_spec("quick", {"workload": "~/w.py:Toy"}).workload.name == f"{home}/w.py:Toy"
    assert load_workload("~/w.py:Toy").steps
    assert travelling("~/w.py:Toy") == (home, "w.py:Toy")


def test_storages(home: Path) -> None:
    StorageView.validate_reachable("sqlite:///~/study.db")
    assert (home / "study.db").is_file()


def test_folders_that_variables_name(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYBRID_SWEEP_CACHE", "~/cache")
    assert Cache().root == home / "cache"


def test_a_home_that_is_not_there_is_refused_with_the_sweep() -> None:
    with pytest.raises(UserError, match=r"warm_start.*no such home folder is known"):
        SweepSpec(name="x", workload="a.b:C", space={}, warm_start=["~no-such-user-here/old"])


STRANGE_NAMES = [
    "../../x",
    "/tmp/x",
    "",
    ".",
    "..",
    "a/b",
    "a\\b",
    "x" * 300,
    "a\0b",
    "a\nb",
    "-x",
    ".x",
    7,
    None,
]


@pytest.mark.parametrize("name", STRANGE_NAMES, ids=repr)
def test_an_identifier_that_could_lead_elsewhere_is_refused(tmp_path: Path, name: object) -> None:
    with pytest.raises(UserError, match=r"here, line 3: .* is no trial_id"):
        validate_identifier(name, "here, line 3")
    folder = SweepFolder.create(tmp_path / "results")
    event = {"event": "finished", "trial_id": name, "seed": 0, "state": "done", "result": {}}
    if name not in ("", "a\0b"):  # controls of `confirm` have an empty one; the zero is left out
        with pytest.raises(UserError, match=r"journal\.jsonl.* (is no trial_id|hold this .*trial_id)"):
            folder.journal.append(event)
        assert folder.journal.path.read_bytes() == b""
        folder.journal.path.write_text(json.dumps(event) + "\n")
        with pytest.raises(UserError, match=r"journal\.jsonl.* line 1.* (is no trial_id|\(trial_id=)"):
            folder.journal.read(folder.journal.path)
    with pytest.raises(UserError, match="is no trial_id"):
        folder.checkpoint_path(name, 0)


@given(st.text())
def test_one_that_is_taken_is_one_name_in_its_folder(name: str) -> None:
    try:
        validate_identifier(name, "here")
    except UserError:
        return
    assert Path("folder", f"{name}_seed0.ckpt").name == f"{name}_seed0.ckpt"
    assert name.isascii()
    assert name.isprintable()


def _link(path: Path, target: Path) -> None:
    path.symlink_to(target)


KINDS = {"a link": _link, "a pipe": lambda path, target: os.mkfifo(path)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [*FILES, *FOLDERS, "models/H050_seed0.pt", "checkpoints/H050_seed0.ckpt"])
def test_what_has_a_name_of_ours_and_leads_elsewhere_is_refused(tmp_path: Path, name: str, kind: str) -> None:
    folder = SweepFolder.create(tmp_path / "results")
    folder.write_manifest({"sweep_id": "x"})
    outside = tmp_path / "outside"
    outside.write_text("untouched")
    place = folder.path / name
    place.parent.mkdir(exist_ok=True)
    place.unlink(missing_ok=True)
    KINDS[kind](place, outside)
    with pytest.raises(UserError, match=f"{place} is .*: nothing outside of a results folder is"):
        SweepFolder.open(folder.path)
    assert outside.read_text() == "untouched"


@pytest.mark.parametrize("name", ["journal.jsonl", ".driver.lock"])
def test_what_is_written_in_place_has_one_name(tmp_path: Path, name: str) -> None:
    folder = SweepFolder.create(tmp_path / "results")
    folder.journal.append({"event": "x"})
    outside = tmp_path / "outside"
    outside.write_text("untouched")
    (folder.path / name).unlink(missing_ok=True)
    os.link(outside, folder.path / name)
    with pytest.raises(UserError, match=f"{name} has 2 names"), folder.driven():
        folder.journal.append({"event": "x"})
    assert not folder.is_driven
    assert outside.read_text() == "untouched"


def test_a_look_at_who_drives_a_folder_writes_nothing(tmp_path: Path) -> None:
    folder = SweepFolder.create(tmp_path / "results")
    assert not folder.is_driven
    assert not (folder.path / ".driver.lock").exists()
    with folder.driven():
        assert folder.is_driven
    (folder.path / ".driver.lock").write_text("another's")
    assert not folder.is_driven
    assert (folder.path / ".driver.lock").read_text() == "another's"


def test_a_folder_that_the_user_reaches_through_a_link_is_fine(tmp_path: Path) -> None:
    folder = SweepFolder.create(tmp_path / "results")
    (tmp_path / "link").symlink_to(folder.path)
    SweepFolder.open(tmp_path / "link").journal.append({"event": "x"})
    assert folder.journal.read(folder.journal.path)


def test_a_link_in_the_place_of_a_temporary_file_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside = tmp_path / "outside"
    outside.write_text("untouched")
    monkeypatch.setattr("secrets.token_hex", lambda length: "guessed")
    (tmp_path / ".a.guessed.tmp").symlink_to(outside)
    with pytest.raises(FileExistsError):
        write_text(tmp_path / "a", "text")
    assert outside.read_text() == "untouched"
    assert not (tmp_path / "a").exists()


def test_a_users_file_is_an_ordinary_one_of_a_bounded_length(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "endless.yaml").symlink_to("/dev/zero")
    with (tmp_path / "long.yaml").open("wb") as file:
        file.truncate(4 * limits.CHARACTERS + 1)
    for name, told in [("pipe", "no ordinary file"), ("endless", "no ordinary file"), ("long", "at most")]:
        with pytest.raises(UserError, match=rf"{name}\.yaml cannot be read .*{told}"):
            load_spec(tmp_path / f"{name}.yaml")
    (tmp_path / "true.yaml").write_text("name: é")
    (tmp_path / "link.yaml").symlink_to("true.yaml")
    assert text_of(tmp_path / "link.yaml") == "name: é"
