"""The processes of the sweep's own Ray are killed: one sentence says how to go on, and nothing is lost."""

import os
import shutil
import signal
import subprocess
import sys

import psutil
import pytest
import yaml
from support import toy
from support.patience import HANG_SECONDS, until

from hybrid_sweep.measure.costs import COST_NAMES
from hybrid_sweep.results import ResultsFolder
from hybrid_sweep.store.journal import Journal

RUNS = 40
SWEEP = {
    "workload": "toy.py:Toy",
    "steps": 3000,
    "trainer": {"warmup_steps": 20, "full_steps": 10, "horizon_rule": "fixed", "confidence_threshold": 0.001},
    "space": {"max_predict_steps": list(range(2, 2 + RUNS))},
    "sampler": "grid",
    "controls": "none",
    "unit_costs": dict.fromkeys(COST_NAMES, 0.1) | {"plain_step": 1.0},
}
SOON = {"RAY_gcs_rpc_server_reconnect_timeout_s": "5"}  # Ray waits a minute for a GCS that is gone


@pytest.mark.ray
@pytest.mark.parametrize("victim", ["raylet", "gcs_server"])
def test_the_driver_says_how_to_go_on_and_leaves_nothing_running(victim, tmp_path):
    shutil.copy(toy.__file__, tmp_path)
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(SWEEP))
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | SOON

    def start(*words):
        command = [sys.executable, "-m", "hybrid_sweep", *words]
        return subprocess.Popen(command, cwd=tmp_path, env=clean, stderr=subprocess.PIPE, text=True)

    def finished():
        assert process.poll() is None, process.communicate()
        journal = tmp_path / "out" / "journal.jsonl"
        return [e for e in Journal.events(journal) if e["event"] == "finished"] if journal.exists() else []

    process = start("run", "sweep.yaml", "--out", "out")
    until(finished)
    family = psutil.Process(process.pid).children(recursive=True)
    next(each for each in family if each.name() == victim).send_signal(signal.SIGKILL)
    said = process.communicate(timeout=HANG_SECONDS)[1]
    assert process.returncode == 1, said
    sentence = said.strip().splitlines()[-1]
    assert sentence.startswith("error: ")
    assert f"go on with `hybrid-sweep resume {tmp_path / 'out'}`" in sentence
    assert "Traceback" not in said
    until(
        lambda: not [each for each in family if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]
    )
    again = start("resume", "out")
    assert (again.communicate(timeout=HANG_SECONDS)[1], again.returncode) == ("", 0)
    assert ResultsFolder.open(tmp_path / "out").trials()["state"].tolist() == ["done"] * RUNS
