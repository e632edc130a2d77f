"""A trial does not land on a shared GPU that is full: with an NVML of our own."""

from types import SimpleNamespace

import pytest

from hybrid_sweep.cluster.gpu_memory import GIB, needed_bytes, shortage
from hybrid_sweep.errors import UserError
from hybrid_sweep.measure.reference import Reference


class Nvml:
    """Two GPUs with 1 and 40 GiB free."""

    def __init__(self):
        self.open = 0

    def nvmlInit(self):
        self.open += 1

    def nvmlShutdown(self):
        self.open -= 1

    def nvmlDeviceGetHandleByIndex(self, index):
        return index

    def nvmlDeviceGetHandleByUUID(self, uuid):
        return {"GPU-b": 1}[uuid]

    def nvmlDeviceGetMemoryInfo(self, handle):
        return SimpleNamespace(free=[1 * GIB, 40 * GIB][handle], total=80 * GIB)


@pytest.mark.parametrize(
    ("visible", "needed", "fits"),
    [
        ("0", 2 * GIB, False),
        ("0", GIB, True),
        ("1", 2 * GIB, True),
        ("1,0", 2 * GIB, True),
        ("GPU-b", 41 * GIB, False),
    ],
)
def test_the_gpu_that_the_worker_sees_is_looked_at(monkeypatch, visible, needed, fits):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    nvml = Nvml()
    said = shortage(needed, nvml)
    assert (said is None) == fits
    assert nvml.open == 0
    assert fits or f"GPU {visible.split(',')[0]} of node" in said


def test_the_sentence_names_both_amounts(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert "has 1.0 GiB free, and a trial needs 2.5 GiB" in shortage(int(2.5 * GIB), Nvml())


def test_what_fits_on_no_empty_gpu_is_refused(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    with pytest.raises(UserError, match=r"has 80\.0 GiB in all, and a trial needs 81\.0 GiB"):
        shortage(81 * GIB, Nvml())


def test_where_nothing_is_needed_nvml_is_not_asked():
    assert shortage(None, None) is None


@pytest.mark.parametrize(("share", "needed"), [(0.25, 1200), (1.0, None), (0.0, None)])
def test_a_trial_needs_what_plain_training_had_at_its_peak_and_a_fifth(share, needed):
    def reference(peak):
        return Reference(seed=0, steps=[0], val_loss=[1.0], val_metric=None, peak_memory_bytes=peak)

    assert needed_bytes({0: reference(1000), 1: reference(900)}, share) == needed
    assert needed_bytes({0: reference(None)}, share) is None
