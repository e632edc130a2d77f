"""The manifest's account of where a sweep ran."""

import json
import subprocess

import pytest
import torch

from hybrid_sweep.cluster import manifest
from hybrid_sweep.cluster.manifest import environment


def git(*arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", *identity, *arguments], check=True, capture_output=True)


def test_versions_and_hardware_as_plain_data():
    found = environment("cpu")
    assert json.loads(json.dumps(found)) == found
    assert found["versions"]["torch"] == torch.__version__
    assert {"python", "hybrid-sweep", "ray", "moocore"} <= set(found["versions"])
    assert found["hardware"]["device"] == "cpu"
    assert found["hardware"]["cores"] >= 1
    assert found["hardware"]["cpu"]
    assert found["hardware"]["threads_per_trial"] == 1
    assert environment("cuda")["hardware"]["threads_per_trial"] is None


def test_a_package_that_is_not_there_has_no_version(monkeypatch):
    monkeypatch.setattr(manifest, "PACKAGES", ("no-such-package",))
    assert environment("cpu")["versions"]["no-such-package"] is None


class TestGit:
    @pytest.fixture(autouse=True)
    def elsewhere(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))

    def test_outside_a_repository(self):
        assert environment("cpu")["git"] is None

    def test_a_commit_and_whether_files_differ_from_it(self, tmp_path):
        git("init")
        assert environment("cpu")["git"] is None  # no commit yet
        git("commit", "--allow-empty", "-m", "first")
        state = environment("cpu")["git"]
        assert len(state["commit"]) == 40
        assert state["dirty"] is False
        (tmp_path / "new.py").touch()
        assert environment("cpu")["git"] == state | {"dirty": True}

    def test_without_git(self, monkeypatch):
        monkeypatch.setattr(manifest.shutil, "which", lambda name: None)
        assert environment("cpu")["git"] is None


def test_git_runs_no_program_that_the_repository_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ran = tmp_path / "ran"
    git("init", "-q")
    (tmp_path / "a").write_text("1")
    (tmp_path / ".gitattributes").write_text("a filter=evil\n")
    git("add", "."), git("commit", "-qm", "one")
    evil = tmp_path / "evil.sh"
    evil.write_text(f"#!/bin/sh\ntouch {ran}\ncat\n")
    evil.chmod(0o755)
    for name in ("filter.evil.clean", "core.fsmonitor", "core.pager"):
        git("config", name, str(evil))
    git("config", "filter.evil.required", "true")
    (tmp_path / "a").write_text("2")
    state = environment("cpu")["git"]
    assert not ran.exists()
    assert state["dirty"]
    assert len(state["commit"]) == 40
    git("status")
    assert ran.exists()  # it would have run
