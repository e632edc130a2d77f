"""How many trials fit on which nodes, and what fits nowhere is refused at once."""

from dataclasses import replace
from pathlib import Path

import pytest
import ray

from hybrid_sweep.cluster.resources import ResourceRequest
from hybrid_sweep.cluster.session import REPORT_EVERY_SECONDS, report_seconds
from hybrid_sweep.errors import SweepBroken, UserError
from hybrid_sweep.spec.sweep import SweepSpec


@pytest.fixture
def place(monkeypatch):
    def make(nodes, **fields):
        alive = [{"Alive": True, "Resources": resources} for resources in nodes]
        monkeypatch.setattr(
            ray, "nodes", lambda: [*alive, {"Alive": False, "Resources": {"CPU": 64, "GPU": 8}}]
        )
        spec = SweepSpec(name="x", workload="trainables.mnist_mlp:MnistMlp", **fields)
        return ResourceRequest.from_spec(spec, None), spec

    return make


@pytest.mark.parametrize(
    ("nodes", "fields", "slots"),
    [
        ([{"CPU": 2}], {}, 2),
        ([{"CPU": 0}, {"CPU": 2}, {"CPU": 3}], {}, 5),
        ([{"CPU": 8}], {"concurrency": 3}, 3),
        ([{"CPU": 8, "GPU": 2}], {}, 2),
        ([{"CPU": 8, "GPU": 2}], {"gpus_per_trial": 0.25}, 8),
        ([{"CPU": 3, "GPU": 2}], {"gpus_per_trial": 0.25}, 3),
        ([{"CPU": 8, "GPU": 2}], {"gpus_per_trial": 0.4}, 4),
        ([{"CPU": 16, "GPU": 1}, {"CPU": 16, "GPU": 2}, {"CPU": 64}], {"gpus_per_trial": 0.2}, 15),
        ([{"CPU": 8, "GPU": 2}], {"device": "cpu", "gpus_per_trial": 0.25}, 8),
    ],
)
def test_slots_are_counted_node_by_node(place, nodes, fields, slots):
    made, spec = place(nodes, **fields)
    assert made.slots(spec) == slots
    assert made.share["gpu"] == (spec.gpus_per_trial if made.order.device == "cuda" else 0)


def test_a_ray_of_our_own_without_a_node_ends_the_sweep_and_a_cluster_waits(place, monkeypatch):
    made, spec = place([{"CPU": 2}])
    assert made.slots_now(spec, 1, Path("out")) == 2
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": False, "Resources": {"CPU": 2}}])
    with pytest.raises(SweepBroken, match="go on with `hybrid-sweep resume out`"):
        made.slots_now(spec, 1, Path("out"))
    assert replace(made, own_ray=False).slots_now(spec, 1, Path("out")) == 0


def test_workers_compile_what_the_sweep_says(place):
    assert place([{"CPU": 2}], compile="default")[0].order.compile == "default"
    assert place([{"CPU": 2}])[0].order.compile == "none"


@pytest.mark.parametrize(
    ("nodes", "fields", "said"),
    [
        ([{"CPU": 2}], {"device": "cuda"}, "Ray sees no GPU; use --device cpu"),
        (
            [{"CPU": 4}, {"CPU": 4, "GPU": 0.5}],
            {"device": "cuda"},
            "a trial takes 1 CPU and 1 GPU, and no node has that",
        ),
        ([{"CPU": 0, "GPU": 4}], {}, "no node has that .nodes: 0 CPU and 4 GPU.: lower gpus_per_trial"),
    ],
)
def test_what_fits_nowhere_is_refused_with_what_there_is(place, nodes, fields, said):
    with pytest.raises(UserError, match=said):
        place(nodes, **fields)


def test_more_than_one_gpu_a_trial_is_refused_by_the_sweep_file():
    with pytest.raises(UserError, match=r"gpus_per_trial=2.0 is not allowed.*<= 1"):
        SweepSpec(name="x", workload="a.b:C", gpus_per_trial=2.0)


@pytest.mark.parametrize(
    ("fields", "pack", "seconds"),
    [
        ({}, 1, REPORT_EVERY_SECONDS),
        ({}, 4, 0.0),
        ({"early_stopping": {}, "sampler": "random", "space": {"max_predict_steps": [5, 50]}}, 1, 0.0),
    ],
)
def test_reports_that_someone_waits_for_travel_alone(fields, pack, seconds):
    spec = SweepSpec(name="x", workload="trainables.mnist_mlp:MnistMlp", **fields)
    assert report_seconds(spec, pack) == seconds
