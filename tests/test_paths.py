"""`~` means the home folder wherever a user gives a path."""

from pathlib import Path

import pytest
from support import toy

from hybrid_sweep.analysis.files import write_text
from hybrid_sweep.analysis.sweep_folder import SweepFolder
from hybrid_sweep.errors import UserError
from hybrid_sweep.measure.cache import Cache
from hybrid_sweep.paths import user_path
from hybrid_sweep.search.storage import StorageView
from hybrid_sweep.spec import SweepSpec, load_spec
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
        SweepFolder.refuse_taken(Path("~/results"))


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
    StorageView.refuse_unreachable("sqlite:///~/study.db")
    assert (home / "study.db").is_file()


def test_folders_that_variables_name(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYBRID_SWEEP_CACHE", "~/cache")
    assert Cache().root == home / "cache"


def test_a_home_that_is_not_there_is_refused_with_the_sweep() -> None:
    with pytest.raises(UserError, match=r"warm_start.*no such home folder is known"):
        SweepSpec(name="x", workload="a.b:C", space={}, warm_start=["~no-such-user-here/old"])
