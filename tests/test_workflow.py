"""The workflow file: what it runs, with whose rights, and that a slip would be seen."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

FILE = Path(__file__).resolve().parents[1] / ".github" / "workflows" / "ci.yml"
SLIPS = [
    ("@11bd71901bbe5b1630ceea73d27597364c9af683  # v4.2.2", "@v4"),
    ("contents: read", "contents: write"),
    ("persist-credentials: false", "persist-credentials: true"),
    ("- run: .ci/run", "- run: echo ${{ github.event.pull_request.title }}"),
]


def faults(file: Path) -> int:
    words = ["zizmor", "--offline", "--persona", "auditor", file]
    return subprocess.run(words, capture_output=True).returncode


def test_jobs_run_the_checks_on_each_python_and_the_lowest_versions_with_no_right_but_to_read():
    workflow = yaml.safe_load(FILE.read_text())
    holds, lowest = workflow["jobs"].values()
    assert workflow["permissions"] == {"contents": "read"}
    assert [step["run"] for step in holds["steps"] if "run" in step] == [".ci/run"]
    assert holds["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13", "3.14"]
    assert any("--resolution lowest-direct" in step.get("run", "") for step in lowest["steps"])
    for job in (holds, lowest):
        assert "permissions" not in job
        assert all(re.search(r"@[0-9a-f]{40}$", step["uses"]) for step in job["steps"] if "uses" in step)
    words = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", FILE]
    assert subprocess.run(words, capture_output=True).returncode == 0
    assert faults(FILE) == 0


@pytest.mark.parametrize("slip", SLIPS)
def test_a_slip_would_be_seen(slip, tmp_path):
    text = FILE.read_text()
    assert slip[0] in text
    file = tmp_path / ".github" / "workflows" / "ci.yml"
    file.parent.mkdir(parents=True)
    file.write_text(text.replace(*slip, 1))
    assert faults(file) > 0
