"""The trainable in Tune's hands: by its methods, and in a `Tuner` with our searcher and scheduler."""

import shutil
from dataclasses import replace

import pytest
from ray import tune
from ray.tune.schedulers import PopulationBasedTraining
from support import toy
from support.local_ray import local_ray
from support.toy import Toy

from hybrid_sweep.cluster.tune import ParetoScheduler, StudySearcher
from hybrid_sweep.cluster.worker_context import Shared, cost_classes
from hybrid_sweep.errors import UserError
from hybrid_sweep.measure.costs import COST_NAMES, UnitCosts
from hybrid_sweep.measure.reference import reference_run
from hybrid_sweep.measure.workload_builder import WorkloadOrder
from hybrid_sweep.spec.sweep import SweepSpec
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
    monkeypatch.setattr("hybrid_sweep.cluster.worker.shortage", lambda needed: "the GPU is full")
    with pytest.raises(RuntimeError, match="the GPU is full"):
        started(shared, point()).step()


def test_it_needs_what_all_trials_share():
    with pytest.raises(ValueError, match="with_parameters"):
        started(None, point())


def test_population_based_training_goes_on_from_the_donor_under_the_new_settings(shared, tmp_path):
    donor, taker = started(shared, point(20)), started(shared, point(10))
    reports = [donor.step() for _ in range(2)]
    taker.step()
    donor.save_checkpoint(str(tmp_path))
    assert taker.reset_config(point(5))
    taker.load_checkpoint(str(tmp_path))
    rest = run(taker)
    assert rest[0]["report"]["step"] > reports[-1]["report"]["step"]
    assert rest[-1]["finished"]["state"] == "done"
    result = rest[-1]["finished"]["result"]
    assert result["max_predict_steps"] == 5
    assert reports[-1]["report"]["realised_horizon"] == 20
    assert 5 < result["realised_horizon_mean"] < 20
    assert losses(rest) != losses(run(donor))


def test_what_cannot_go_on_is_refused_and_does_not_begin_again_silently(shared, tmp_path):
    donor = started(shared, point())
    donor.step()
    donor.save_checkpoint(str(tmp_path))
    two = replace(shared, references={**shared.references, 1: replace(shared.references[0], seed=1)})
    other = started(two, point())
    other.reset_config(point(seed=1))
    with pytest.raises(UserError, match="the checkpoint has seed=0, this run 1"):
        other.load_checkpoint(str(tmp_path))
    (tmp_path / "run.pt").write_bytes(b"damaged")
    other.reset_config(point())
    with pytest.raises(UserError, match="cannot be read"):
        other.load_checkpoint(str(tmp_path))


def test_what_others_have_trained_is_not_followed_where_tune_moves_checkpoints(shared, tmp_path):
    sharing = replace(shared, sweep_id="pbt", tried=[], open_ended=True)
    first, second = started(sharing, point()), started(sharing, point())
    run(first)
    second.step()
    second.save_checkpoint(str(tmp_path))
    assert (tmp_path / "run.pt").read_bytes()


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


@pytest.mark.ray
def test_a_tuner_with_population_based_training(shared, tmp_path):
    def perturbed(config):
        return {"point": {**config["point"], "config": {**config["point"]["config"], "max_predict_steps": 7}}}

    with local_ray(2):
        results = tune.Tuner(
            tune.with_parameters(HybridTrainable, shared=shared),
            param_space={"point": tune.grid_search([point(5)["point"], point(20)["point"]])},
            tune_config=tune.TuneConfig(
                scheduler=PopulationBasedTraining(
                    time_attr="training_iteration",
                    metric="report/val_loss",
                    mode="min",
                    perturbation_interval=1,
                    quantile_fraction=0.5,
                    resample_probability=0.0,
                    custom_explore_fn=perturbed,
                    synch=True,
                ),
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(storage_path=str(tmp_path), verbose=0),
        ).fit()
    assert not results.errors
    states = [
        result.metrics.get("finished/state", (result.metrics.get("finished") or {}).get("state"))
        for result in results
    ]
    assert states == ["done", "done"]
    horizons = {result.config["point"]["config"]["max_predict_steps"] for result in results}
    assert 7 in horizons
