"""One sweep through everything that ends a driver: kill -9, a stop from outside, Ctrl-C, more trials."""

import json
import shutil
import signal
import subprocess
import sys
from collections import Counter

import pytest
import yaml
from support import toy
from support.patience import HANG_SECONDS
from support.patience import until as wait_until

from hybrid_sweep.measure.costs import COST_NAMES
from hybrid_sweep.results import ResultsFolder
from hybrid_sweep.store.journal import Journal

pytestmark = [pytest.mark.ray, pytest.mark.slow]
SWEEP = {
    "workload": "toy.py:Toy",
    "steps": 3000,
    "trainer": {"warmup_steps": 20, "full_steps": 10, "horizon_rule": "fixed", "confidence_threshold": 0.001},
    "space": {"max_predict_steps": {"low": 2, "high": 40}},
    "sampler": "tpe",
    "trials": 6,
    "repeats": 2,
    "controls": "none",
    "checkpoint_seconds": 0.1,
    "unit_costs": dict.fromkeys(COST_NAMES, 0.1) | {"plain_step": 1.0},
}


@pytest.fixture
def call(tmp_path, monkeypatch):
    """Start the command line in a user's folder."""
    shutil.copy(toy.__file__, tmp_path)
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(SWEEP))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")

    def call(*arguments):
        command = [sys.executable, "-m", "hybrid_sweep", *arguments]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    return call


def events(kind):
    return [event for event in Journal.events("out/journal.jsonl") if event["event"] == kind]


def until(process, condition):
    def looked():
        assert process.poll() is None, process.communicate()
        return condition()

    wait_until(looked, pause=0.02)


def more_reports(count):
    """Return a look at whether so many more reports are in than now."""
    wanted = len(events("reported")) + count
    return lambda: len(events("reported")) >= wanted


def said(process, code):
    out, err = process.communicate(timeout=HANG_SECONDS)
    assert process.returncode == code, (out, err)
    return out, err


def status():
    out, _ = said(
        subprocess.Popen(
            [sys.executable, "-m", "hybrid_sweep", "status", "out", "--format", "json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ),
        0,
    )
    return json.loads(out)


def test_nothing_is_lost_whatever_ends_the_driver(call):
    first = call("run", "sweep.yaml", "--out", "out")
    until(first, more_reports(3))

    _, refusal = said(call("resume", "out"), 2)
    assert "another process drives the sweep in out" in refusal
    assert status()["state"] == "running"

    first.send_signal(signal.SIGKILL)
    first.wait()
    assert status()["state"] not in ("running", "finished")

    reports = more_reports(3)
    second = call("resume", "out")
    until(second, reports)
    ResultsFolder.open("out").request_stop()  # what `hybrid-sweep stop out` does, at once
    out, _ = said(second, 130)
    assert "Interrupted" in out
    assert "hybrid-sweep resume out" in out.replace(str(ResultsFolder.open("out").path.absolute()), "out")
    assert not (ResultsFolder.open("out").trials()["state"] == "running").any()
    _, refusal = said(call("stop", "out"), 2)
    assert "nothing drives the sweep" in refusal

    reports = more_reports(3)
    third = call("resume", "out")
    until(third, reports)
    third.send_signal(signal.SIGTERM)
    said(third, 130)

    out, _ = said(call("resume", "out", "--trials", "8"), 0)
    trials = ResultsFolder.open("out").trials()
    assert len(trials) == 16
    assert set(trials["state"]) == {"done"}
    assert Counter((e["trial_id"], e["seed"]) for e in events("finished")).most_common(1)[0][1] == 1
    assert len({e["trial_id"] for e in events("asked")}) == len(events("asked")) == 8
    assert not list((ResultsFolder.open("out").path / "checkpoints").iterdir())
    assert status()["state"] == "finished"

    for each in events("interrupted"):
        if each["result"]:
            own = [e for e in Journal.events("out/journal.jsonl") if e.get("trial_id") == each["trial_id"]]
            own = [
                e for e in own if e.get("seed") == each["seed"] and e["event"] in ("interrupted", "reported")
            ]
            after = [e["report"]["step"] for e in own[own.index(each) :] if e["event"] == "reported"]
            assert after[0] > each["result"]["steps"], "it went on from its checkpoint"

    out, _ = said(call("resume", "out"), 0)
    assert "nothing is left to run" in out
