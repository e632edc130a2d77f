"""The question before the code of a folder from elsewhere runs, and that nothing runs before its answer."""

import subprocess
import sys
import types
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from hybrid_sweep.cli.app import app
from hybrid_sweep.cli.trusting import trusted
from hybrid_sweep.driver.origin import MARK
from hybrid_sweep.driver.sweep import begin, recorded_spec
from hybrid_sweep.results import ResultsFolder
from hybrid_sweep.spec.sweep import SweepSpec


@pytest.fixture
def folder(tmp_path: Path) -> ResultsFolder:
    """Results from elsewhere, whose workload leaves a marker when it is imported."""
    (tmp_path / "w.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass W: ...\n")
    spec = SweepSpec(name="x", workload=f"{tmp_path}/w.py:W", space={"max_predict_steps": [5]})
    made = begin(tmp_path / "out", spec, 9, {})
    finished = {"event": "finished", "trial_id": "H5", "seed": 0, "state": "done", "reason": None}
    point = {"trial_id": "H5", "number": 0, "config": {}, "params": {}, "source": "grid"}
    made.journal.append({"event": "asked", **point})
    made.journal.append({**finished, "result": {"speedup": 2.0, "speedup_counted": 2.0, "quality": 1.0}})
    (made.path / MARK).unlink()
    return made


@pytest.mark.parametrize("answer", [True, False])
def test_in_a_terminal_it_is_asked_and_no_is_the_default(folder, monkeypatch, answer):
    asked = []
    terminal = types.SimpleNamespace(isatty=lambda: True)
    monkeypatch.setattr(sys, "stdin", terminal)
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(typer, "confirm", lambda text, **how: asked.append((text, how)) or answer)
    assert trusted(folder, lambda: recorded_spec(folder), None, False) is answer
    ((text, how),) = asked
    assert "w.py:W" in text
    assert how["default"] is False
    assert trusted(folder, lambda: recorded_spec(folder), None, True)
    assert len(asked) == 1


@pytest.mark.parametrize("command", ["resume", "confirm"])
def test_without_one_it_is_refused_with_the_command_and_nothing_is_run(folder, command):
    before = sorted(path.name for path in folder.path.iterdir() if path.name != ".driver.lock")
    done = subprocess.run(
        [sys.executable, "-m", "hybrid_sweep", command, folder.path],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 2, done.stderr
    assert f"`hybrid-sweep {command} {folder.path} --trust`" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (folder.path.parent / "ran").exists()
    assert sorted(path.name for path in folder.path.iterdir() if path.name != ".driver.lock") == before


@pytest.mark.parametrize("command", ["status", "pareto", "report", "verdict", "replay", "export"])
def test_reading_commands_run_no_code_of_a_folder(folder, command):
    CliRunner().invoke(app, [command, str(folder.path)])
    assert not (folder.path.parent / "ran").exists()
