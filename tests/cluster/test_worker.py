"""The runner without Ray: one report a step, one worker for many trials, failures that are told."""

import weakref
from dataclasses import replace

import pytest
import torch
from support import toy
from support.toy import Toy

from hybrid_sweep.cluster.worker import TrialWorker
from hybrid_sweep.cluster.worker_context import Shared, cost_class
from hybrid_sweep.errors import UserError
from hybrid_sweep.measure import hybrid_run as trial_module
from hybrid_sweep.measure.costs import COST_NAMES, UnitCosts
from hybrid_sweep.measure.reference import reference_run
from hybrid_sweep.measure.workload_builder import WorkloadOrder
from hybrid_sweep.trainer import HybridConfig

FIELDS = {"warmup_steps": 20, "full_steps": 10, "horizon_rule": "fixed", "confidence_threshold": 0.001}


def config(horizon=20, seed=0):
    return {"trial_id": f"H{horizon}", "seed": seed, "config": FIELDS | {"max_predict_steps": horizon}}


@pytest.fixture
def shared():
    def make(models=None, **keywords):
        references = {seed: reference_run(Toy(), seed, 120, 10) for seed in (0, 1)}
        return Shared(
            order=WorkloadOrder(name=f"{toy.__file__}:Toy", keywords=keywords, device="cpu"),
            references=references,
            costs={cost_class(HybridConfig(**FIELDS)): UnitCosts(**dict.fromkeys(COST_NAMES, 1.0))},
            controls=True,
            models=models,
        )

    return make


def started(shared, first, checkpoint=None):
    runner = TrialWorker(shared)
    runner.start(first, checkpoint)
    return runner


def saving(shared, every):
    """What all trials share, with a checkpoint due after so many seconds."""
    return replace(shared, checkpoint_seconds=every)


def run(runner):
    reports = [runner.step()]
    while "finished" not in reports[-1]:
        reports.append(runner.step())
    return reports


def test_one_report_a_step_and_the_result_with_the_last(shared):
    *some, last = run(started(shared(), config()))
    assert len(some) >= 2
    assert all(report["checkpoint"] is None for report in some)
    assert last["report"]["step"] == 120
    assert last["finished"]["state"] == "done"
    assert last["finished"]["result"]["max_predict_steps"] == 20


def test_another_workload_than_the_sweep_began_with_is_refused(shared):
    with pytest.raises(UserError, match=r"^toy\.py changed since the sweep began"):
        TrialWorker(replace(shared(), began_with={"code": {"0 toy.py": "another"}})).ready()


def test_reports_of_short_cycles_travel_together(shared):
    alone = run(started(shared(), config()))
    (together,) = run(started(replace(shared(), report_seconds=60.0), config()))
    reports = [*together["earlier"], together["report"]]
    assert [r["step"] for r in reports] == [said["report"]["step"] for said in alone]
    assert [r["val_loss"] for r in reports] == [said["report"]["val_loss"] for said in alone]


def test_rare_reports_travel_together_without_what_was_not_due(shared):
    alone = run(started(shared(), config()))
    due = [next(s["report"]["step"] for s in alone if s["report"]["step"] >= at) for at in (40, 80, 120)]
    (together,) = run(started(replace(shared(), report_seconds=60.0, report_every=40), config()))
    assert [r["step"] for r in [*together["earlier"], together["report"]]] == due


def test_a_checkpoint_does_not_wait_for_other_reports(shared):
    said = started(saving(replace(shared(), report_seconds=60.0), 1e-9), config()).step()
    assert said["checkpoint"]
    assert "earlier" not in said


def test_what_was_reported_before_a_failure_is_told(shared, monkeypatch):
    iter_report, told = trial_module.HybridRun.iter_report, []

    def broken(trial):
        if len(told) == 2:
            raise RuntimeError("out of luck")
        told.append((yield from iter_report(trial)))
        return told[-1]

    monkeypatch.setattr(trial_module.HybridRun, "iter_report", broken)
    said = started(replace(shared(), report_seconds=60.0), config()).step()
    assert said["finished"]["state"] == "failed"
    assert said["earlier"] == told


def test_a_twin_that_raises_does_not_fail_the_trial(shared, monkeypatch):
    def broken(*given, **options):
        raise RuntimeError("out of luck")

    monkeypatch.setattr(trial_module, "ControlTraining", broken)
    finished = run(started(replace(shared(), share=False), config()))[-1]["finished"]
    assert finished["state"] == "done"
    assert finished["reason"].startswith("no quality_vs_frozen: its run raised RuntimeError: out of luck; no")
    assert finished["result"]["quality"] > 0
    assert finished["result"]["quality_vs_frozen"] is finished["result"]["quality_vs_lr_matched"] is None


def test_an_worker_is_reused_and_a_trial_does_not_see_the_one_before(shared):
    runner = started(shared(), config(20))
    first = run(runner)[-1]["finished"]["result"]
    workload = runner._workload
    runner.start(config(30, seed=1))
    other = run(runner)[-1]["finished"]["result"]
    assert other["max_predict_steps"] == 30
    assert other["reference_val_loss"] != first["reference_val_loss"]
    runner.start(config(20))
    again = run(runner)[-1]["finished"]["result"]
    assert again["val_loss"] == first["val_loss"]
    assert again["quality_vs_frozen"] == first["quality_vs_frozen"]
    assert runner._workload is workload


def test_an_exception_of_the_users_code_fails_the_trial_and_not_the_worker(shared):
    runner = started(shared(troubles={30: "raise"}), config(30))
    last = run(runner)[-1]
    assert last["finished"]["state"] == "failed"
    assert last["finished"]["reason"] == "RuntimeError: the toy is broken"
    assert last["finished"]["result"] == {}
    assert "in loss" in last["finished"]["traceback"]
    runner.start(config(20))
    assert run(runner)[-1]["finished"]["state"] == "done"


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


CLOCKED = {
    *("speedup", "speedup_cpu", "speedup_bound", "loading_share"),
    *("overhead_pct", "train_seconds", "eval_seconds"),
}


def unclocked(finished):
    return str({name: value for name, value in finished["result"].items() if name not in CLOCKED})


def losses(reports):
    return [(report["report"]["step"], report["report"]["loss"]) for report in reports]


class TestCheckpoints:
    def test_at_every_report_or_never_is_the_same_training(self, shared):
        never = run(started(shared(dropout=0.3), config()))
        always = run(started(saving(shared(dropout=0.3), 0), config()))
        assert not any(report.get("checkpoint") for report in never)
        assert all(report["checkpoint"] for report in always[:-1])
        assert losses(always) == losses(never)
        assert unclocked(always[-1]["finished"]) == unclocked(never[-1]["finished"])

    def test_another_worker_goes_on_from_one(self, shared):
        reports = run(started(saving(shared(dropout=0.3), 0), config()))
        for i, report in enumerate(reports[:-1]):
            worker = started(shared(dropout=0.3), config(30, seed=1))
            worker.step()
            worker.start(config(), report["checkpoint"])
            rest = run(worker)
            assert losses(rest) == losses(reports[i + 1 :])
            assert unclocked(rest[-1]["finished"]) == unclocked(reports[-1]["finished"])

    def test_state_that_cannot_be_saved_whole_is_neither_saved_nor_gone_on_from(self, shared):
        first, *_ = run(started(saving(shared(), 0), config()))
        worker = started(replace(saving(shared(), 0), saves=False), config(), first["checkpoint"])
        said = worker.step()
        assert said["report"]["step"] == first["report"]["step"]
        assert said["checkpoint"] is worker.checkpoint() is worker.stop_now(True)["checkpoint"] is None

    def test_the_next_trial_of_the_worker_begins_at_its_beginning(self, shared):
        first, *_ = run(started(saving(shared(), 0), config()))
        worker = started(shared(), config(), first["checkpoint"])
        run(worker)
        worker.start(config())
        assert worker.step()["report"]["step"] == first["report"]["step"]

    def test_it_is_due_after_so_many_seconds(self, shared, monkeypatch):
        now = [0.0]
        monkeypatch.setattr("hybrid_sweep.cluster.worker.time.monotonic", lambda: now[0])
        worker = started(saving(shared(), 30), config(1))
        due = []
        for now[0] in (5, 34, 35, 36, 64.9, 65):
            due.append(worker.step()["checkpoint"] is not None)
        assert due == [False, False, True, False, False, True]

    @pytest.mark.parametrize("damage", ["another trial's", "torn"])
    def test_one_that_does_not_fit_costs_the_work_and_not_the_trial(self, shared, damage):
        first, *_ = run(started(saving(shared(), 0), config(20)))
        checkpoint = first["checkpoint"] if damage == "another trial's" else first["checkpoint"][:-100]
        horizon = 30 if damage == "another trial's" else 20
        expected = run(started(shared(), config(horizon)))
        assert losses(run(started(shared(), config(horizon), checkpoint))) == losses(expected)

    def test_a_state_that_cannot_be_saved_costs_the_checkpoint_and_not_the_trial(self, shared, monkeypatch):
        worker = started(saving(shared(), 0), config())
        monkeypatch.setattr(
            "hybrid_sweep.measure.hybrid_run.HybridRun.state_dict", lambda trial: {"own": run}
        )
        reports = run(worker)
        assert all(report["checkpoint"] is None for report in reports[:-1])
        assert reports[-1]["finished"]["state"] == "done"

    def test_they_do_not_wait_for_rare_reports(self, shared):
        often = run(started(saving(shared(), 0), config()))
        rare = replace(saving(shared(), 0), report_every=1000)
        reports = run(started(rare, config()))
        assert [bool(report["report"]) for report in reports] == [False] * (len(often) - 1) + [True]
        for report in reports[:-1]:
            rest = run(started(rare, config(), report["checkpoint"]))
            assert unclocked(rest[-1]["finished"]) == unclocked(reports[-1]["finished"])


class TestStopping:
    def test_a_trial_stops_between_rare_reports(self, shared):
        often, rare = (started(replace(shared(), report_every=n), config()) for n in (1, 1000))
        report = often.step()["report"]
        assert rare.step()["report"] is None
        stopped = rare.stop_now(keep=True)
        assert unclocked(stopped) == unclocked(often.stop_now(keep=True))
        assert stopped["result"]["quality"] == report["quality"]
        rare.start(config(), stopped["checkpoint"])
        assert run(rare)[-1]["report"]["step"] == 120

    def test_a_stopped_trial_tells_how_far_it_came_and_goes_on_another_time(self, shared):
        expected = run(started(shared(), config()))
        worker = started(shared(), config())
        report = worker.step()["report"]
        stopped = worker.stop_now(keep=True)
        assert stopped["result"]["steps"] == report["step"]
        assert stopped["result"]["quality"] == report["quality"]
        assert stopped["result"]["quality_vs_frozen"] is None
        worker.start(config(), stopped["checkpoint"])
        rest = run(worker)
        assert losses(rest) == losses(expected[1:])
        assert unclocked(rest[-1]["finished"]) == unclocked(expected[-1]["finished"])

    def test_nothing_is_kept_where_no_one_asks(self, shared):
        worker = started(shared(), config())
        worker.step()
        assert worker.stop_now(keep=False)["checkpoint"] is None

    def test_before_the_first_step_there_is_no_result(self, shared):
        assert started(shared(), config()).stop_now(keep=True) == {"result": {}, "checkpoint": None}
        waiting = started(shared(), config(), b"kept")
        assert waiting.stop_now(keep=True)["checkpoint"] == b"kept"


def test_a_worker_warms_up_before_its_first_trial_and_says_what_it_cannot_build(shared):
    worker = TrialWorker(shared())
    worker.ready()
    assert worker._workload is not None
    with pytest.raises(UserError, match="colour"):
        TrialWorker(shared(colour="red")).ready()


def test_a_full_gpu_is_told_before_the_trial_is_built(shared, monkeypatch):
    full = ["GPU 0 of node x has 1.0 GiB free, and a trial needs 2.0 GiB"]
    monkeypatch.setattr("hybrid_sweep.cluster.worker.shortage", lambda needed: full and full[0])
    worker = started(shared(), config())
    assert worker.step() == {"lost": full[0], "counted": False}
    full.clear()
    assert run(worker)[-1]["finished"]["state"] == "done"


def test_a_trial_that_runs_out_of_gpu_memory_is_to_be_tried_again(shared, monkeypatch):
    def full(trial):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory.\nTried to allocate")

    monkeypatch.setattr("hybrid_sweep.measure.hybrid_run.HybridRun.iter_report", full)
    assert started(shared(), config()).step() == {
        "lost": "out of GPU memory: CUDA out of memory. Tried to allocate"
    }


def test_memory_is_given_back_once_nothing_holds_it(shared, monkeypatch):
    taken, held = [], []

    def full(trial):
        activations = torch.zeros(3)
        taken.append(weakref.ref(activations))
        raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr("hybrid_sweep.measure.hybrid_run.HybridRun.iter_report", full)
    worker = started(shared(), config())
    worker.ready()
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: held.append(taken[0]() is not None))
    worker.step()
    assert held == [False]
