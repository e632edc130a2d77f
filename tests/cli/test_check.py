"""`hybrid-sweep check`: a line a look, and exit code 2 where `run` would refuse."""

import shutil
import sys

import pytest
import yaml
from support import toy

from hybrid_sweep import cli

WORKLOADS = """
import itertools, random
import torch
from toy import Toy

class Goes(Toy):
    numbers = itertools.count()

    def batch(self, seed, step):
        return self.draw(next(self.numbers))

class Counts(Toy):
    def build_model(self, seed):
        model = super().build_model(seed)
        model.calls = 0
        return model

    def loss(self, model, batch):
        model.calls += 1
        return super().loss(model, batch) * (1 + 0.9**model.calls)

class Short(Toy):
    def build_scheduler(self, optimizer):
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=120)

class Breaks(Toy):
    def loss(self, model, batch):
        raise KeyError("labels")
"""


@pytest.fixture
def check(tmp_path, monkeypatch, capsys):
    """Return a function that checks a workload of a user's folder, and gives exit code and lines by name."""
    shutil.copy(toy.__file__, tmp_path)
    (tmp_path / "mine.py").write_text(WORKLOADS)
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["hybrid-sweep", "check", *arguments, "--device", "cpu"])
        with pytest.raises(SystemExit) as left:
            cli.main()
        *lines, last = capsys.readouterr().out.splitlines()
        assert last == ("`hybrid-sweep run` would refuse it." if left.value.code else "It can be run.")
        return left.value.code or 0, {line[8:26].strip(): (line[:8].strip(), line[27:]) for line in lines}

    return call


def test_a_good_workload_is_told_of_in_lines(check, tmp_path):
    before = sorted(tmp_path.rglob("*.*"))
    code, lines = check("mine.py:Toy")
    assert code == 0
    assert {state for state, _ in lines.values()} == {"ok"}
    names = ["builds", "model", "batches", "evaluation", "evaluation leaves", "training", "saved state"]
    assert list(lines) == [*names, "trained", "loss", "schedule", "results", "time of a run", "memory"]
    assert "120 steps take about" in lines["time of a run"][1]
    assert sorted(p for p in tmp_path.rglob("*.*") if "__pycache__" not in p.parts) == before


def test_what_run_would_refuse_ends_with_2(check):
    code, lines = check("mine.py:Goes")
    assert code == 2
    assert lines["batches"][0] == "problem"
    assert "saved state" not in lines  # which would but say so again


def test_state_that_is_not_saved_is_a_note(check):
    code, lines = check("mine.py:Counts")
    assert code == 0
    state, said = lines["saved state"]
    assert state == "note"
    assert "such as calls, so nothing of this sweep is shared" in said


def test_a_schedule_is_held_against_the_steps_that_are_asked_for(check):
    assert check("mine.py:Short")[0] == 0
    code, lines = check("mine.py:Short", "--steps", "300")
    assert code == 2
    assert lines["schedule"][0] == "problem"


def test_what_the_users_code_raises_is_a_line(check):
    code, lines = check("mine.py:Breaks")
    assert code == 2
    assert lines == {"builds": ("problem", "the workload raises KeyError: 'labels': fix that first")}


def test_of_a_sweep_time_and_memory_are_told(check, tmp_path):
    sweep = {"workload": "mine.py:Toy", "sampler": "grid", "space": {"max_predict_steps": [20, 40, 60]}}
    settings = {"controls": "none", "repeats": 2, "concurrency": 4}
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump({**sweep, **settings}))
    code, lines = check("sweep.yaml")
    assert code == 0
    assert lines["time of the sweep"][1].startswith("8 runs, 4 at once: about ")
    assert lines["memory"][1].endswith(" for 4")
