"""Connecting to Ray: whatever goes wrong meanwhile, no Ray is left behind."""

import pytest
import ray
from support.local_ray import quiet

from hybrid_sweep.cluster.connection import connected
from hybrid_sweep.spec import SweepSpec


@pytest.fixture
def calls(monkeypatch):
    """Return what was asked of a Ray that is not there."""
    made = []
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **options: made.append("init"))
    monkeypatch.setattr(ray, "shutdown", lambda: made.append("shutdown"))
    with quiet():
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
