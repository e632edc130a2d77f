"""A sweep over three real Ray nodes, and what is left of it when one of them is killed."""

import shutil
import sys
from collections import Counter
from dataclasses import replace

import pytest
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from support import toy
from support.local_ray import quiet, ray_at
from support.nodes import nodes

from hybrid_sweep.cluster import session
from hybrid_sweep.cluster.batched_worker import BatchedWorker
from hybrid_sweep.cluster.launch import run_sweep
from hybrid_sweep.cluster.prefix_store import Directory, start_directory
from hybrid_sweep.cluster.worker import TrialWorker
from hybrid_sweep.cluster.worker_context import Shared, cost_class
from hybrid_sweep.driver.events import TrialFinished, TrialReported
from hybrid_sweep.measure.costs import COST_NAMES, UnitCosts
from hybrid_sweep.measure.reference import reference_run
from hybrid_sweep.measure.workload_builder import WorkloadOrder
from hybrid_sweep.spec.sweep import SweepSpec
from hybrid_sweep.store.journal import Journal
from hybrid_sweep.trainer import HybridConfig

pytestmark = [pytest.mark.ray, pytest.mark.slow]
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import tests
COUNTED = ["quality", "quality_vs_truncated", "val_loss", "speedup_counted", "behaviour"]


@pytest.fixture(scope="module", autouse=True)
def quietly():
    with quiet():
        yield


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    """A user's own file, four points, checkpoints as often as can be."""
    file = shutil.copy(toy.__file__, tmp_path_factory.mktemp("user"))
    return SweepSpec(
        name="toy",
        workload={"name": f"{file}:Toy", "dropout": 0.1},
        steps=1000,
        trainer={
            "warmup_steps": 20,
            "full_steps": 10,
            "horizon_rule": "fixed",
            "confidence_threshold": 0.001,
        },
        space={"max_predict_steps": [5, 10], "correction_interval": [0, 5]},
        sampler="grid",
        controls="none",
        checkpoint_seconds=0.001,
        unit_costs=dict.fromkeys(COST_NAMES, 0.1) | {"plain_step": 1.0},
    )


@pytest.fixture(scope="module")
def at_home(spec, tmp_path_factory):
    """The same sweep on a Ray of its own."""
    outcome = run_sweep(spec, tmp_path_factory.mktemp("home") / "results")
    assert outcome.counts == {"done": 4}
    return outcome.folder.trials().set_index("trial_id")[COUNTED]


@pytest.fixture(scope="module")
def cluster(at_home):
    """A head without CPUs and two workers with one; the last test kills one of them."""
    with nodes(2) as cluster:
        yield cluster


def test_three_nodes_give_what_one_machine_gives(spec, cluster, at_home, tmp_path):
    outcome = run_sweep(spec, tmp_path / "results", address=cluster.address)
    assert outcome.counts == {"done": 4}
    away = outcome.folder.trials().set_index("trial_id")[COUNTED]
    assert away.loc[at_home.index].equals(at_home)


@pytest.fixture(scope="module")
def shared():
    """Three configurations that agree until something can be predicted, two of them to the end."""
    base = HybridConfig(warmup_steps=20, full_steps=10, minimum_cosine=-1.0, confidence_threshold=0.9)
    tried = [
        base.replace(max_predict_steps=35),
        base.replace(max_predict_steps=12),
        base.replace(max_predict_steps=12, confidence_threshold=0.05),
    ]
    return Shared(
        order=WorkloadOrder(name=f"{toy.__file__}:Toy", keywords={}, device="cpu"),
        references={0: reference_run(toy.Toy(), 0, 120, 20)},
        costs={cost_class(base): UnitCosts(**dict.fromkeys(COST_NAMES, 1.0))},
        controls=False,
        tried=tried,
    )


@pytest.mark.parametrize("pack", [1, 2])
def test_a_node_follows_what_another_one_has_trained(cluster, shared, pack):
    def followed_seconds(shared):
        """Train the first configuration on one node, then the others on the other one."""
        actors = [
            ray.remote(TrialWorker if pack == 1 else BatchedWorker)
            .options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False))
            .remote(shared)
            for node in ray.nodes()
            if node["Alive"] and node["Resources"].get("CPU")
        ]
        results = []
        for actor, config in zip([actors[0], *actors[1:] * 2], shared.tried, strict=True):
            slot = () if pack == 1 else (1,)
            actor.start.remote(*slot, {"trial_id": "t", "seed": 0, "config": config.model_dump()})
            while "finished" not in (said := ray.get(actor.step.remote(*slot))):
                pass
            results.append(said["finished"]["result"]["followed_seconds"])
        for actor in actors:
            ray.kill(actor)
        return results

    with ray_at(cluster.address):
        shared = replace(shared, pack=pack)
        leads, leads_too, _ = followed_seconds(replace(shared, sweep_id=f"without{pack}"))
        assert leads == leads_too == 0
        edges = start_directory()
        leads, follows, follows_too = followed_seconds(replace(shared, sweep_id=f"with{pack}", edges=edges))
        assert leads == 0 < min(follows, follows_too)


class OnProgress(Directory):
    """Remembers that it was used."""

    told = 0

    def put(self, key, data):
        self.told += 1
        super().put(key, data)

    def times(self):
        return self.told


def test_a_directory_that_dies_costs_no_run(spec, cluster, at_home, tmp_path, monkeypatch):
    alive, told = [], []

    def start():
        alive.append(ray.remote(OnProgress).options(num_cpus=0).remote(10_000_000))
        return alive[-1]

    def kill_once(event):
        if isinstance(event, TrialReported) and alive and (times := ray.get(alive[0].times.remote())):
            told.append(times)
            ray.kill(alive.pop())

    monkeypatch.setattr(session, "start_directory", start)
    outcome = run_sweep(spec, tmp_path / "results", address=cluster.address, on_event=kill_once)
    assert told
    assert outcome.counts == {"done": 4}
    trials = outcome.folder.trials().set_index("trial_id")[COUNTED]
    assert trials.loc[at_home.index].equals(at_home)


def test_a_node_that_dies_costs_a_checkpoint_interval_and_no_run(spec, cluster, at_home, tmp_path):
    reports, alive = Counter(), [True]

    def kill_once(event):
        """Kill a node when both work."""
        if isinstance(event, TrialReported):
            reports[event.trial_id] += 1
        elif isinstance(event, TrialFinished):
            del reports[event.trial_id]
        if alive and sum(count >= 2 for count in reports.values()) == 2:
            alive.clear()
            cluster.kill_worker(0)

    outcome = run_sweep(spec, tmp_path / "results", address=cluster.address, on_event=kill_once)
    assert outcome.counts == {"done": 4}
    trials = outcome.folder.trials().set_index("trial_id")[COUNTED]
    assert trials.loc[at_home.index].equals(at_home)

    events = Journal.read(outcome.folder.journal.path)
    lost = [event for event in events if event["event"] == "lost"]
    assert lost
    for each in lost:
        own = [
            e for e in events if e.get("trial_id") == each["trial_id"] and e["event"] in ("reported", "lost")
        ]
        at = own.index(each)
        before, after = own[at - 1]["report"]["step"], own[at + 1]["report"]["step"]
        assert after > before, "every report had its checkpoint, so none of them was trained again"
