"""The manifest's account of where a sweep ran."""

import json
import subprocess

import pytest
import torch

from hybrid_sweep.cluster import environment as module
from hybrid_sweep.cluster.environment import environment


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
    monkeypatch.setattr(module, "PACKAGES", ("no-such-package",))
    assert environment("cpu")["versions"]["no-such-package"] is None


class TestGit:
    @pytest.fixture(autouse=True)
    def elsewhere(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))

    def test_outside_a_repository(self):
        assert environment("cpu")["git"] is None

    def test_a_commit(self):
        git("init")
        assert environment("cpu")["git"] is None  # no commit yet
        git("commit", "--allow-empty", "-m", "first")
        assert len(environment("cpu")["git"]["commit"]) == 40

    def test_without_git(self, monkeypatch):
        monkeypatch.setattr(module.shutil, "which", lambda name: None)
        assert environment("cpu")["git"] is None


@pytest.mark.parametrize("place", ["--local", "--worktree"])
@pytest.mark.parametrize("name", ["evil", "a=b"])
def test_git_runs_no_program_that_the_repository_names(tmp_path, monkeypatch, place, name):
    monkeypatch.chdir(tmp_path)
    ran, evil = tmp_path / "ran", tmp_path / "evil.sh"
    git("init", "-q")
    (tmp_path / "a").write_text("1")
    (tmp_path / ".gitattributes").write_text(f"a filter={name}\n")
    git("add", "."), git("commit", "-qm", "one")
    evil.write_text(f"#!/bin/sh\ntouch {ran}\ncat\n")
    evil.chmod(0o755)
    git("config", "extensions.worktreeConfig", "true")
    for setting in (f"filter.{name}.clean", "core.fsmonitor", "core.pager"):
        git("config", place, setting, str(evil))
    (tmp_path / "a").write_text("2")
    assert len(environment("cpu")["git"]["commit"]) == 40
    assert not ran.exists()
    git("status")
    assert ran.exists()  # it would have run
