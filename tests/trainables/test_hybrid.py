"""The trainable in Tune's hands: by its methods, and in a `Tuner` with our searcher and scheduler."""

import shutil
from dataclasses import replace

import pytest
from ray import tune
from support import toy
from support.local_ray import local_ray
from support.toy import Toy

from hybrid_sweep.cluster.order import WorkloadOrder
from hybrid_sweep.cluster.searcher import ParetoScheduler, StudySearcher
from hybrid_sweep.cluster.work import Shared, cost_classes
from hybrid_sweep.measure.costs import COST_NAMES, UnitCosts
from hybrid_sweep.measure.reference import reference_run
from hybrid_sweep.spec import SweepSpec
from trainables.hybrid import HybridTrainable

SPEC = SweepSpec(
    name="toy",
    workload="toy.py:Toy",
    trainer={"warmup_steps": 20, "full_steps": 10, "horizon_rule": "fixed", "confidence_threshold": 0.001},
    space={"max_predict_steps": [5, 10, 20]},
    sampler="random",
    trials=3,
)


def point(horizon=20, seed=0):
    config = {**SPEC.trainer, "max_predict_steps": horizon}
    return {"point": {"trial_id": f"H{horizon}", "seed": seed, "config": config}}


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    file = shutil.copy(toy.__file__, tmp_path_factory.mktemp("user"))
    return Shared(
        order=WorkloadOrder(name=f"{file}:Toy", keywords={"dropout": 0.3}, device="cpu"),
        references={0: reference_run(Toy(dropout=0.3), 0, 120, 10)},
        costs=dict.fromkeys(cost_classes(SPEC), UnitCosts(**dict.fromkeys(COST_NAMES, 1.0))),
        controls=False,
    )


def started(shared, config):
    """A trainable as Tune makes it, without Tune's folders."""
    trainable = HybridTrainable.__new__(HybridTrainable)
    trainable.setup(config, shared=shared)
    return trainable


def run(trainable):
    reports = [trainable.step()]
    while not reports[-1]["done"]:
        reports.append(trainable.step())
    return reports


def losses(reports):
    return [(report["report"]["step"], report["report"]["loss"]) for report in reports]


def test_one_report_a_step_and_the_result_with_the_last(shared):
    *some, last = run(started(shared, point()))
    assert len(some) >= 2
    assert all(set(report) == {"report", "done"} for report in some)
    assert last["finished"]["state"] == "done"


def test_rare_reports_are_one_a_step_too(shared):
    first, last = run(started(replace(shared, report_every=60), point()))
    assert 60 <= first["report"]["step"] < last["report"]["step"] == 120


def test_an_actor_is_reused(shared):
    trainable = started(shared, point(20))
    first = run(trainable)
    assert trainable.reset_config(point(10))
    assert losses(run(trainable)) != losses(first)
    trainable.reset_config(point(20))
    assert losses(run(trainable)) == losses(first)


def test_tune_saves_and_restores_through_a_folder(shared, tmp_path):
    expected = run(started(shared, point()))
    one, other = started(shared, point()), started(shared, point())
    for i in range(2):
        one.save_checkpoint(str(tmp_path))
        other.load_checkpoint(str(tmp_path))
        assert losses([other.step()]) == losses([expected[i]])
        one.step()
    run(one)
    one.save_checkpoint(str(tmp_path))
    other.load_checkpoint(str(tmp_path))
    assert losses(run(other)) == losses(expected)


def test_what_should_be_tried_again_is_an_error_to_tune(shared, monkeypatch):
    monkeypatch.setattr("hybrid_sweep.cluster.runner.shortage", lambda needed: "the GPU is full")
    with pytest.raises(RuntimeError, match="the GPU is full"):
        started(shared, point()).step()


def test_it_needs_what_all_trials_share():
    with pytest.raises(ValueError, match="with_parameters"):
        started(None, point())


@pytest.mark.ray
def test_a_tuner_of_ones_own(shared, tmp_path):
    with local_ray(2):
        searcher = StudySearcher(SPEC, "x", 120)
        results = tune.Tuner(
            tune.with_parameters(HybridTrainable, shared=shared),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                scheduler=ParetoScheduler(searcher),
                num_samples=-1,
                max_concurrent_trials=2,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(storage_path=str(tmp_path), verbose=0),
        ).fit()
    assert len(results) == 3
    assert {result.metrics["finished"]["state"] for result in results} == {"done"}
    assert (searcher.study.asked, searcher.study.has_more) == (3, False)
