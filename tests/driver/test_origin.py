"""Code of a results folder runs without a question only where this user started the sweep on this machine."""

import json
import shutil
from hashlib import sha256
from pathlib import Path

import pytest

from hybrid_sweep.cluster.launch import resume_sweep
from hybrid_sweep.driver import origin
from hybrid_sweep.driver.moved import with_workload
from hybrid_sweep.driver.origin import MARK, untrusted, validate_storage_origin, validate_trust
from hybrid_sweep.driver.sweep import begin, recorded_spec
from hybrid_sweep.errors import UserError
from hybrid_sweep.results import ResultsFolder
from hybrid_sweep.spec.sweep import SweepSpec

TEXT = "class W: pass\n"


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch) -> Path:
    """Where this user's key is kept."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "hybrid-sweep"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A workload with a neighbour that it imports, and the results of a sweep."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "w.py").write_text(TEXT)
    (tmp_path / "a" / "near.py").write_text("x = 1\n")
    spec = SweepSpec(
        name="x",
        workload={"name": f"{tmp_path}/a/w.py:W", "width": 3},
        space={"max_predict_steps": [5]},
    )
    code = {
        f"0 {name}": sha256((tmp_path / "a" / name).read_bytes()).hexdigest() for name in ("w.py", "near.py")
    }
    begin(tmp_path / "a" / "out", spec, 9, {"code": code})
    return tmp_path / "a"


def look(project: Path, *, trust: bool = False, command="resume") -> None:
    folder = ResultsFolder.open(project / "out")
    validate_trust(folder, with_workload(recorded_spec(folder), folder, None), trust=trust, command=command)


def refused(project: Path, **options) -> str:
    with pytest.raises(UserError) as caught:
        look(project, **options)
    return str(caught.value)


def test_a_sweep_of_this_user_on_this_machine_needs_no_question(project, state):
    look(project)
    assert (state / "secret").stat().st_mode & 0o777 == 0o600


def test_nor_does_one_that_was_moved_or_copied_here(project):
    copy = shutil.copytree(project, project.with_name("b"))
    look(copy)
    look(project.rename(project.with_name("c")))


@pytest.mark.parametrize("command", ["resume", "confirm"])
def test_one_without_a_mark_names_its_code_and_the_command_once(project, command):
    (project / "out" / MARK).unlink()
    said = refused(project, command=command)
    digest = sha256(TEXT.encode()).hexdigest()
    assert f"{project}/w.py:W ({project}/w.py, sha256 {digest[:16]})" in said
    assert f"`hybrid-sweep {command} {project}/out --trust`" in said
    assert "\n" not in said
    look(project, trust=True)
    look(project)


@pytest.mark.parametrize(
    "change",
    [
        {"sweep_id": "another"},
        {"code": {}},
        {"code": None},
        {"spec": {"width": 4}},
        {"spec": {"name": "trainables.regression:Regression"}},
        {"workload_at": "../near.py"},
        {"spec": {"name": "{}/w.py:V"}},
    ],
)
def test_a_mark_holds_for_the_code_that_it_was_made_for(project, change):
    path = project / "out" / "manifest.json"
    manifest = json.loads(path.read_text())
    if inner := change.get("spec"):
        inner = {key: value.format(project) if key == "name" else value for key, value in inner.items()}
        change = {"spec": {**manifest["spec"], "workload": {**manifest["spec"]["workload"], **inner}}}
    path.write_text(json.dumps({**manifest, **change}))
    assert "was not started by this user on this machine" in refused(project)


def test_changed_code_is_told_before_it_is_asked_about_or_imported(project):
    (project / "near.py").write_text("open('ran', 'w')\n")
    for trust in (False, True):
        assert refused(project, trust=trust).startswith("near.py changed since the sweep began")


def test_a_wrapper_that_no_digest_knows_is_part_of_the_mark(project):
    path = project / "out" / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "code": {"0 other.py": "0"}}))
    look(project, trust=True)
    (project / "w.py").write_text("open('ran', 'w')\n")
    assert "was not started by this user" in refused(project)


@pytest.mark.parametrize("name", ["json.py", "numpy.py", "yaml.abi3.so", "torch/__init__.py"])
def test_a_module_that_takes_the_name_of_a_package_is_asked_about(project, name):
    (project / "mine.py").touch()
    (project / "torch").mkdir()
    look(project)
    (project / name).touch()
    assert "was not started by this user" in refused(project)


def test_another_user_or_machine_has_another_mark(project, state, monkeypatch, tmp_path):
    (tmp_path / "machine").write_text("another\n")
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(origin, "MACHINE", tmp_path / "machine")
        assert "was not started" in refused(project)
    look(project)
    (state / "secret").write_bytes(b"x" * 32)
    assert "was not started" in refused(project)


@pytest.mark.parametrize("mark", [b"", b"\xff" * 64, b"0" * 64, b"0" * 10_000_000])
def test_a_mark_that_is_none_is_none(project, mark):
    (project / "out" / MARK).write_bytes(mark)
    assert "was not started" in refused(project)


@pytest.mark.parametrize("trouble", ["readable", "link", "short", "no home", "a file"])
def test_a_key_that_is_not_this_users_alone_marks_nothing(project, state, trouble, monkeypatch, tmp_path):
    secret = state / "secret"
    if trouble == "readable":
        secret.chmod(0o644)
    elif trouble == "link":
        secret.symlink_to(secret.rename(tmp_path / "elsewhere"))
    elif trouble == "short":
        secret.write_bytes(b"x")
    elif trouble == "no home":
        monkeypatch.setattr(origin.platformdirs, "user_state_path", lambda *_, **__: Path("~/.local"))
    else:
        shutil.rmtree(state)
        state.touch()
    assert "was not started" in refused(project)
    look(project, trust=True)
    folder = ResultsFolder.open(project / "out")
    assert untrusted(folder, recorded_spec(folder))


def test_a_hostile_name_reaches_no_terminal_raw(project):
    path = project / "out" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["spec"]["workload"]["name"] = "trainables.regression:Regression\x1b]0;x\x07"
    path.write_text(json.dumps(manifest))
    assert "\x1b" not in refused(project)


def test_trust_in_code_is_none_in_the_storage_that_a_folder_names(project: Path) -> None:
    folder = ResultsFolder.open(project / "out")
    foreign = "postgresql://u:secret@127.0.0.1:1/x"
    recorded = {**folder.manifest, "sweep_id": "another"}
    folder.write_manifest({**recorded, "spec": {**recorded["spec"], "storage": foreign}})
    for command in ("confirm", "resume"):
        validate_trust(folder, recorded_spec(folder), trust=True, command=command)
        assert untrusted(folder, recorded_spec(folder)) is None
        with pytest.raises(UserError, match=r"names the storage .*u:\*\*\*@.*, with --storage URL"):
            validate_storage_origin(folder, foreign)
        with pytest.raises(UserError, match="only where you name it yourself"):
            resume_sweep(folder.path)
    origin.mark(folder, recorded_spec(folder))  # as a resume does that names it
    validate_storage_origin(folder, foreign)
    validate_trust(folder, recorded_spec(folder), trust=True)
    validate_storage_origin(folder, foreign)
