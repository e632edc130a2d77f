"""Imports: no private name of another package, which may break any day, and none that a reader waits for."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import hybrid_sweep
import trainables

OURS = [Path(package.__file__).parent for package in (hybrid_sweep, trainables)]
FILES = [file for folder in OURS for file in sorted(folder.rglob("*.py"))]
LOOK = """
import sys
from hybrid_sweep.cli import main
try:
    main()
finally:
    loaded = {"numpy", "pandas", "pyarrow", "scipy", "torch", "ray", "optuna"} & set(sys.modules)
    assert not loaded, loaded
"""


def imported(tree):
    """Yield every dotted name that a file imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_tables_are_read_without_scipy():
    code = "import sys; from hybrid_sweep import results; sys.exit('scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("command", ["status", "pareto"])
def test_a_look_at_a_sweep_waits_for_no_table(command, tmp_path):
    run = {"trial_id": "a", "seed": 0}
    began = {"event": "started", **run, "config": {}}
    ended = {"event": "finished", **run, "state": "done", "result": {"speedup": 2.0, "quality": 1.0}}
    (tmp_path / "journal.jsonl").write_text("".join(json.dumps(event) + "\n" for event in (began, ended)))
    looked = subprocess.run([sys.executable, "-c", LOOK, command, tmp_path], capture_output=True, text=True)
    assert looked.returncode == 0, looked.stderr
    assert "2.00" in looked.stdout


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.name}")
def test_no_private_name_of_another_package(file):
    names = [name for name in imported(ast.parse(file.read_text())) if name.partition(".")[0] != "__future__"]
    assert [name for name in names if any(part.startswith("_") for part in name.split("."))] == []
