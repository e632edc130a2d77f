"""Runs of a confirmation are trained, whatever a sweep has kept: they are timed."""

from support.toy import Toy

from hybrid_sweep.confirm.runs import HYBRID, REFERENCE, Runs
from hybrid_sweep.control import ControlConfig
from hybrid_sweep.measure.cache import Cache
from hybrid_sweep.measure.workload_builder import WorkloadOrder
from hybrid_sweep.store.journal import Journal
from hybrid_sweep.trainer import HybridConfig

FROZEN = ControlConfig(name="frozen").model_dump_json()


def test_a_confirmation_neither_reads_nor_fills_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HYBRID_SWEEP_CACHE", str(tmp_path / "cache"))
    loaded = []
    config = HybridConfig(warmup_steps=10, full_steps=10, max_predict_steps=5, confidence_threshold=0.001)
    for name in ("one", "other"):
        workload = WorkloadOrder(name="support.toy:Toy", keywords={}, device="cpu").build()
        count, batch = [], workload.batch
        workload.batch = lambda seed, step, batch=batch, count=count: count.append(step) or batch(seed, step)
        runs = Runs(Journal(tmp_path / name), workload, Toy.steps)
        for key in (("", REFERENCE, 0), ("p", HYBRID, 0), ("p", FROZEN, 0)):
            runs.add(key, config if key[1] == HYBRID else None, test=False)
        loaded.append(len(count))
    assert loaded[0] == loaded[1] > 2 * Toy.steps
    assert Cache().usage() == []
