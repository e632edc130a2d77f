"""The scripts of the image as real Ray nodes on this machine."""

import os
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import ray
from support.local_ray import ray_at
from support.nodes import Node, free_port, nodes
from support.patience import HANG_SECONDS, until

DOCKER = Path(__file__).resolve().parents[2] / "docker"
pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(autouse=True)
def no_authentication(monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")


@ray.remote
def pid():
    return os.getpid()


def test_three_nodes_of_which_one_is_killed():
    with nodes(2, cpus=1, gpus=2) as cluster:
        everything = [p for node in (cluster.head, *cluster.workers) for p in node.processes()]
        with ray_at(cluster.address):
            have = ray.cluster_resources()
            assert (have["CPU"], have["GPU"]) == (2, 4)  # the head has none
            assert all(ray.get([pid.options(scheduling_strategy="SPREAD").remote() for _ in range(4)]))
            lost = cluster.workers[0].processes()
            cluster.kill_worker(0)
            assert not any(process.is_running() for process in lost)
            until(lambda: cluster.alive() == 2)
            assert ray.get(pid.remote())
    assert not any(process.is_running() for process in everything)
    assert not cluster.head.log.parent.exists()


def test_a_worker_waits_for_its_head_and_the_probes_of_both_answer():
    folder = Path(tempfile.mkdtemp(prefix="hs", dir="/tmp"))
    head_port, dashboard_port = free_port(), free_port()
    made = []
    try:
        worker = Node("start-worker.sh", folder / "w", {"RAY_ADDRESS": f"127.0.0.1:{head_port}"})
        made.append(worker)
        until(lambda: worker.processes())
        ports = {"HEAD_PORT": head_port, "DASHBOARD_PORT": dashboard_port, "CLIENT_PORT": free_port()}
        agents = {"head": free_port(), "metrics": free_port()}
        settings = {name: str(port) for name, port in ports.items()}
        settings |= {"AGENT_PORT": str(agents["head"]), "METRICS_PORT": str(agents["metrics"])}
        made.append(Node("start-head.sh", folder / "h", settings))

        def answer(port, path):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=5) as response:
                    return response.read().decode()
            except OSError:
                return ""

        assert "success" in until(lambda: answer(dashboard_port, "api/gcs_healthz"))
        assert "success" in until(lambda: answer(agents["head"], "api/local_raylet_healthz"))
        until(lambda: "ray_" in answer(agents["metrics"], "metrics"))
        until(lambda: answer(dashboard_port, "api/v0/nodes").count("ALIVE") == 2)
        assert worker.script.poll() is None
        assert worker.processes()[0].pid == worker.script.pid  # exec: signals of a container reach ray
    finally:
        for node in made:
            node.kill()
        shutil.rmtree(folder, ignore_errors=True)


def test_sigterm_ends_a_node_as_a_container_is_ended():
    with nodes(1) as cluster:
        worker = cluster.workers[0]
        before = worker.processes()
        worker.script.terminate()
        worker.script.wait(timeout=HANG_SECONDS)
        psutil.wait_procs(before, timeout=HANG_SECONDS)
        assert worker.processes() == []
        until(lambda: cluster.alive() == 1)


UP_UNTIL_KILLED = """
import time
from pathlib import Path
from support.nodes import nodes
with nodes(1):
    Path({up!r}).touch()
    time.sleep(600)
"""


def test_nodes_end_with_a_test_process_that_is_killed(tmp_path):
    script = tmp_path / "tests.py"
    up = tmp_path / "up"
    script.write_text(UP_UNTIL_KILLED.format(up=str(up)))

    def environments():
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                found.append(process.environ())
        return [environment for environment in found if environment.get("KILLED_TEST") == str(tmp_path)]

    def folders():
        return {Path(environment["TEMP_DIR"]) for environment in environments() if "TEMP_DIR" in environment}

    environment = os.environ | {"KILLED_TEST": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[1])}
    test = subprocess.Popen([sys.executable, script], env=environment)
    until(up.exists)  # an agent of Ray's that has just been started outlives its node by minutes
    two = folders()
    assert len(two) == 2
    test.kill()
    test.wait()
    until(lambda: not environments())
    shutil.rmtree(next(iter(two)).parent)


def test_a_sweep_that_is_started_again_goes_on(tmp_path):
    """What a RayJob does after its head was lost."""
    folder = tmp_path / "results"
    with nodes(1, cpus=2) as cluster:
        environment = os.environ | {
            "RAY_ADDRESS": cluster.address,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }
        words = [DOCKER / "run-sweep.sh", folder, "quick", "--steps", "120", "--set=controls=none"]
        first = subprocess.run(words, env=environment, capture_output=True, text=True)
        assert first.returncode == 0, first.stdout + first.stderr
        journal = (folder / "journal.jsonl").read_text()
        again = subprocess.run(words, env=environment, capture_output=True, text=True)
        assert again.returncode == 0, again.stdout + again.stderr
        after = (folder / "journal.jsonl").read_text()
        assert after.count('"event": "finished"') == journal.count('"event": "finished"') == 4
