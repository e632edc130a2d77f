"""Connecting to Ray: whatever goes wrong meanwhile, no Ray is left behind, and it ends nothing but itself."""

import gc
import os
import signal
import subprocess
import sys
import threading

import pytest
import ray
from support.local_ray import quiet
from support.signals import unignored

from hybrid_sweep.cluster.connection import connected
from hybrid_sweep.driver.interrupts import ENDING
from hybrid_sweep.spec.sweep import SweepSpec


@pytest.fixture
def calls(monkeypatch):
    """Return what was asked of a Ray that is not there."""
    made = []
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **options: made.append("init"))
    monkeypatch.setattr(ray, "shutdown", lambda: made.append("shutdown"))
    with quiet(), unignored():
        yield made


@pytest.mark.parametrize("trouble", [ImportError("no torch"), KeyboardInterrupt()])
def test_what_goes_wrong_meanwhile_is_told_and_ends_ray(calls, trouble):
    def broken():
        raise trouble

    spec = SweepSpec(name="x", workload="trainables.mnist_mlp:MnistMlp")
    with pytest.raises(type(trouble)), connected(spec, None, broken):
        pytest.fail("it is not connected")
    assert calls == ["init", "shutdown"]


def test_ray_ends_with_the_block(calls):
    with connected(SweepSpec(name="x", workload="trainables.mnist_mlp:MnistMlp"), None):
        assert calls == ["init"]
    assert calls == ["init", "shutdown"]


class TestAnInterruptWaits:
    SPEC = SweepSpec(name="x", workload="trainables.mnist_mlp:MnistMlp")

    @pytest.mark.parametrize("number", ENDING)
    def test_until_ray_has_started_which_then_ends(self, calls, monkeypatch, number):
        def init(**options):
            signal.signal(signal.SIGTERM, lambda *_: calls.append("Ray's own handler"))
            signal.raise_signal(number)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            calls.append("init")

        monkeypatch.setattr(ray, "init", init)
        with pytest.raises(KeyboardInterrupt), connected(self.SPEC, None):
            pytest.fail("it goes on")
        assert calls == ["init", "shutdown"]

    @pytest.mark.parametrize("number", ENDING)
    def test_until_ray_has_ended(self, calls, monkeypatch, number):
        def shutdown():
            signal.raise_signal(number)
            calls.append("shutdown")

        monkeypatch.setattr(ray, "shutdown", shutdown)
        with pytest.raises(KeyboardInterrupt), connected(self.SPEC, None):
            pass
        assert calls == ["init", "shutdown"]


def test_lines_of_threads_of_ray_are_not_shown(calls, capsys):
    with connected(SweepSpec(name="x", workload="trainables.mnist_mlp:MnistMlp"), None):
        beside = threading.Thread(target=print, args=("A worker died",), name="ray_listen_error_messages")
        beside.start()
        beside.join()
        print("ours")
    assert capsys.readouterr().out == "ours\n"


def test_ends_with_no_one_looking_for_garbage(calls, monkeypatch):
    monkeypatch.setattr(ray, "shutdown", lambda: calls.append(gc.isenabled()))
    with connected(SweepSpec(name="x", workload="trainables.mnist_mlp:MnistMlp"), None):
        assert gc.isenabled()
    assert calls == ["init", False]
    assert gc.isenabled()


ENDS_BESIDE_GARBAGE = """
import gc, threading, ray
from hybrid_sweep.cluster.connection import connected
from hybrid_sweep.spec.sweep import SweepSpec

def make_garbage():
    while ray.is_initialized():
        pass
    while not ended:
        cycle = [references.pop()]
        cycle.append(cycle)
        sum(range(2000))

ended = []
gc.set_threshold(50)
beside = threading.Thread(target=make_garbage, daemon=True)
with connected(SweepSpec(name="x", workload="trainables.mnist_mlp:MnistMlp"), None):
    kept = ray.put(1)
    references = [ray.ObjectRef(kept.binary()) for _ in range(200_000)]
    beside.start()
ended.append(True)
beside.join()
print("goes on", len(references) > 0)
"""


@pytest.mark.ray
def test_what_another_thread_leaves_behind_does_not_end_the_process(tmp_path):
    """Without `_end_ray` Ray's core ends it, exit code 1, when a reference is collected as it shuts down.

    The folder for temporary files is too long for Ray's sockets, as it is on clusters.
    """
    long = tmp_path / "slurm_jobdir" / ("x" * 90)
    long.mkdir(parents=True)
    program = [sys.executable, "-c", ENDS_BESIDE_GARBAGE]
    with quiet():
        environment = {**os.environ, "TMPDIR": str(long)}
        ran = subprocess.run(program, capture_output=True, text=True, env=environment)
    assert (ran.returncode, ran.stdout) == (0, "goes on True\n"), ran.stderr
