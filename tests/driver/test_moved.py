"""A project that was moved or copied finds its workload again, and another file is refused."""

import shutil
from hashlib import sha256
from pathlib import Path

import pytest

from hybrid_sweep.driver.moved import with_workload
from hybrid_sweep.driver.sweep import begin, recorded_spec
from hybrid_sweep.errors import UserError
from hybrid_sweep.results import ResultsFolder
from hybrid_sweep.search.warm_start import known_points
from hybrid_sweep.spec.sweep import SweepSpec

TEXT = "class W: pass  # the one that was trained\n"


def spec_of(file: Path) -> SweepSpec:
    return SweepSpec(name="x", workload={"name": f"{file}:W", "width": 3}, space={"max_predict_steps": [5]})


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with a package, a workload in it, and results of a sweep some folders away."""
    file = tmp_path / "a" / "code" / "w.py"
    file.parent.mkdir(parents=True)
    file.write_text(TEXT)
    code = {"0 w.py": sha256(TEXT.encode()).hexdigest()}
    begin(tmp_path / "a" / "results" / "one", spec_of(file), 9, {"code": code})
    return tmp_path / "a"


def found(project: Path, given: str | None = None) -> str:
    folder = ResultsFolder.open(project / "results" / "one")
    spec = with_workload(recorded_spec(folder), folder, given)
    assert spec.workload.keywords == {"width": 3}
    return spec.workload.name


def test_it_is_where_it_was(project: Path) -> None:
    assert found(project) == f"{project}/code/w.py:W"


def test_a_project_that_was_moved_has_it_where_it_lay_beside_the_results(project: Path) -> None:
    moved = project.rename(project.with_name("b"))
    assert found(moved) == f"{moved}/code/w.py:W"


def test_a_copy_uses_its_own_file_and_the_first_one_where_that_was_changed(project: Path) -> None:
    copy = shutil.copytree(project, project.with_name("b"))
    assert found(copy) == f"{copy}/code/w.py:W"
    (copy / "code" / "w.py").write_text("class W: pass\n")
    assert found(copy) == f"{project}/code/w.py:W"


def test_results_that_were_moved_alone_find_it_where_it_is(project: Path) -> None:
    (project / "elsewhere").mkdir()
    results = (project / "results").rename(project / "elsewhere" / "results")
    assert found(results.parent) == f"{project}/code/w.py:W"


def test_one_that_is_gone_is_said_with_the_option_that_helps(project: Path, monkeypatch) -> None:
    file = (project / "code" / "w.py").rename(project / "mine.py")
    with pytest.raises(UserError, match=r"not at .*/a/code/w\.py any more.*--workload FILE:Class"):
        found(project)
    assert found(project, f"{file}:W") == f"{file}:W"
    monkeypatch.chdir(project)
    assert found(project, "mine.py:W") == f"{file}:W"
    assert found(project, "mine:W") == f"{file}:W"
    file.write_text("class W: pass\n")
    with pytest.raises(UserError, match=r"mine\.py is not what the sweep in .* trained"):
        found(project, "mine.py:W")
    with pytest.raises(UserError, match=r"no/such\.py"):
        found(project, "no/such.py:W")


def test_a_changed_file_at_its_place_is_left_to_the_workers_to_refuse(project: Path) -> None:
    (project / "code" / "w.py").write_text("class W: pass\n")
    assert found(project) == f"{project}/code/w.py:W"


def test_modules_stay_modules(tmp_path: Path) -> None:
    spec = SweepSpec(name="x", workload="trainables.regression:Regression", space={"full_steps": [5]})
    folder = begin(tmp_path / "out", spec, 9, {})
    assert with_workload(recorded_spec(folder), folder) == spec


def test_a_moved_sweep_is_one_to_learn_from(project: Path) -> None:
    moved = project.rename(project.with_name("b"))
    earlier = ResultsFolder.open(moved / "results" / "one")
    assert known_points(earlier, spec_of(moved / "code" / "w.py")) == []
    (moved / "code" / "w.py").write_text("class W: pass\n")
    with pytest.raises(UserError, match="only sweeps of the same workload"):
        known_points(earlier, spec_of(moved / "code" / "w.py"))
