"""The trainable without Ray: one report a step, one actor for many trials, failures that are told."""

import pytest
from support import toy
from support.toy import Toy

from hybrid_sweep.cluster.work import Shared, WorkloadOrder, cost_class
from hybrid_sweep.measure.costs import COST_NAMES, UnitCosts
from hybrid_sweep.measure.reference import reference_run
from hybrid_sweep.trainer import HybridConfig
from trainables.hybrid import HybridTrainable

FIELDS = {"warmup_steps": 20, "full_steps": 10, "horizon_rule": "fixed", "confidence_threshold": 0.001}


def config(horizon=20, seed=0):
    point = {"trial_id": f"H{horizon}", "seed": seed, "config": FIELDS | {"max_predict_steps": horizon}}
    return {"point": point}


@pytest.fixture
def shared():
    def make(models=None, **keywords):
        references = {seed: reference_run(Toy(), seed, 120, 10) for seed in (0, 1)}
        return Shared(
            order=WorkloadOrder(name=f"{toy.__file__}:Toy", keywords=keywords, device="cpu"),
            references=references,
            costs={cost_class(HybridConfig(**FIELDS)): UnitCosts(**dict.fromkeys(COST_NAMES, 1.0))},
            frozen_control=True,
            models=models,
        )

    return make


def started(shared, first):
    """A trainable as Tune makes it, without Tune's folders."""
    trainable = HybridTrainable.__new__(HybridTrainable)
    trainable.setup(first, shared=shared)
    return trainable


def run(trainable):
    reports = [trainable.step()]
    while not reports[-1]["done"]:
        reports.append(trainable.step())
    return reports


def test_one_report_a_step_and_the_result_with_the_last(shared):
    *some, last = run(started(shared(), config()))
    assert len(some) >= 2
    assert all(set(report) == {"report", "done"} for report in some)
    assert last["report"]["step"] == 120
    assert last["finished"]["state"] == "done"
    assert last["finished"]["result"]["max_predict_steps"] == 20


def test_an_actor_is_reused_and_a_trial_does_not_see_the_one_before(shared):
    trainable = started(shared(), config(20))
    first = run(trainable)[-1]["finished"]["result"]
    workload = trainable._workload
    assert trainable.reset_config(config(30, seed=1))
    other = run(trainable)[-1]["finished"]["result"]
    assert other["max_predict_steps"] == 30
    assert other["reference_val_loss"] != first["reference_val_loss"]
    trainable.reset_config(config(20))
    again = run(trainable)[-1]["finished"]["result"]
    assert again["val_loss"] == first["val_loss"]
    assert again["quality_vs_frozen"] == first["quality_vs_frozen"]
    assert trainable._workload is workload


def test_an_exception_of_the_users_code_fails_the_trial_and_not_the_actor(shared):
    trainable = started(shared(troubles={30: "raise"}), config(30))
    last = run(trainable)[-1]
    assert last["finished"]["state"] == "failed"
    assert last["finished"]["reason"] == "RuntimeError: the toy is broken"
    assert last["finished"]["result"] == {}
    assert "in loss" in last["finished"]["traceback"]
    trainable.reset_config(config(20))
    assert run(trainable)[-1]["finished"]["state"] == "done"


def test_a_divergence_is_a_result(shared):
    finished = run(started(shared(troubles={30: "nan"}), config(30)))[-1]["finished"]
    assert finished["state"] == "diverged"
    assert "nan" in finished["reason"]
    assert finished["result"]["quality"] == 0.0


def test_a_workload_that_cannot_be_built_fails_the_trial(shared):
    finished = run(started(shared(colour="red"), config()))[-1]["finished"]
    assert finished["state"] == "failed"
    assert "colour" in finished["reason"]


def test_models_are_kept_where_the_sweep_keeps_them(shared, tmp_path):
    run(started(shared(models=tmp_path), config()))
    assert [file.name for file in tmp_path.iterdir()] == ["H20_seed0.pt"]


def test_it_needs_what_all_trials_share():
    with pytest.raises(ValueError, match="with_parameters"):
        started(None, config())
