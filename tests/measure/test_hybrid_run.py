"""One hybrid run, scored: against the reference, against truncated training, against its twins."""

import json
import math

import pytest
import torch
from support.toy import Toy

from hybrid_sweep.control import ControlConfig
from hybrid_sweep.measure import hybrid_run as trial_module
from hybrid_sweep.measure.control_run import ControlRun
from hybrid_sweep.measure.control_training import ControlTraining, run_hybrid
from hybrid_sweep.measure.costs import COST_NAMES, UnitCosts
from hybrid_sweep.measure.curve import Curve
from hybrid_sweep.measure.hybrid_run import HybridRun
from hybrid_sweep.measure.reference import reference_run, start
from hybrid_sweep.measure.score import behaviour, speedup_counted
from hybrid_sweep.store.columns import TRIAL_COLUMNS
from hybrid_sweep.trainer import HybridConfig, cost_meter
from hybrid_sweep.trainer.cost_meter import Work

COSTS = UnitCosts(
    batch=0.1, plain_step=1.0, observe=0.05, update=0.5, checkpoint=0.2, jump=0.1, forward=0.4, score=0.02
)
JUMPING = HybridConfig(
    warmup_steps=20, full_steps=10, max_predict_steps=20, confidence_threshold=0.001, horizon_rule="fixed"
)
SHUT = JUMPING.replace(confidence_threshold=0.999)
CLOCKED = {
    *("speedup", "speedup_cpu", "speedup_bound", "loading_share"),
    *("overhead_pct", "train_seconds", "eval_seconds"),
}


class Clocked(Toy):
    """A toy whose loss takes a second of a clock that only its batches move beside.

    A loader that prefetches begins with the batch of the next step where it hands out one, and one that
    sleeps takes no time of the CPU.
    """

    def __init__(self, monkeypatch, batch_seconds, *, prefetching=False, sleeps=False):
        super().__init__()
        self.now, self.cpu, self.ready = 0.0, 0.0, {}
        self.batch_seconds, self.prefetching, self.sleeps = batch_seconds, prefetching, sleeps
        monkeypatch.setattr(cost_meter.time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(cost_meter.time, "thread_time", lambda: self.cpu)

    def batch(self, seed, step):
        done = self.ready.pop(step, self.now + self.batch_seconds)
        waited = max(done - self.now, 0.0)
        self.now += waited
        self.cpu += 0.0 if self.sleeps else waited
        self.ready = {step + 1: self.now + self.batch_seconds} if self.prefetching else {}
        return super().batch(seed, step)

    def loss(self, model, batch):
        self.now += 1.0
        self.cpu += 1.0
        return super().loss(model, batch)


def run(config=JUMPING, workload=None, twins=None, steps=120, eval_every=1, report_every=1):
    """Return the finished trial and its reports."""
    workload = workload or Toy()
    reference = reference_run(workload, 0, steps, eval_every)
    trial = HybridRun(workload, config, reference, COSTS, twins, report_every=report_every)
    reports = [trial.report()]
    while not trial.done:
        reports.append(trial.report())
    return trial, [report for report in reports if report is not None]


def counted(result):
    return {name: value for name, value in result.items() if name not in CLOCKED}


class TestAgainstPlainTraining:
    def test_quality_is_reference_loss_over_own_loss_at_the_same_step(self):
        trial, reports = run()
        own = trial.workload.evaluate(trial.trainer.model, "val")["loss"]
        assert trial.result()["val_loss"] == own
        assert trial.result()["quality"] == trial.reference.val_loss[-1] / own
        for report in reports:
            expected = trial.reference.val_loss[report["step"]] / report["val_loss"]
            assert report["quality"] == pytest.approx(expected)

    def test_truncated_is_plain_training_of_as_many_backward_passes(self):
        trial, _ = run()
        result = trial.result()
        plain = start(Toy(), 0)
        for step in range(1, result["backward_calls"] + 1):
            plain(Toy.batch(trial.workload, 0, step))
        truncated = Toy().evaluate(plain.model, "val")["loss"]
        assert 0 < result["backward_calls"] < 120
        assert result["quality_vs_truncated"] == truncated / result["val_loss"]

    def test_an_optimizer_that_looks_at_its_loss_four_times_a_step_is_compared_at_equal_steps(self):
        workload = Toy()
        workload.build_optimizer = lambda model: torch.optim.LBFGS(
            model.parameters(), lr=1e-4, max_iter=4, tolerance_change=0
        )
        trial, _ = run(workload=workload)
        result, taken = trial.result(), trial.trainer.meter.calls[Work.PLAIN]
        assert 0 < taken < 120 < result["backward_calls"]
        assert result["quality_vs_truncated"] == trial.reference.val_loss[taken] / result["val_loss"]
        assert result["speedup_bound"] > 1

    @pytest.mark.parametrize("options", [{}, {"dropout": 0.5}, {"norm": True}], ids=str)
    @pytest.mark.parametrize("eval_every", [1, 25])
    def test_a_shut_gate_is_plain_training(self, options, eval_every):
        trial, reports = run(SHUT, Toy(**options), twins={}, eval_every=eval_every)
        result = trial.result()
        assert result["quality"] == result["quality_vs_truncated"] == result["quality_vs_frozen"] == 1.0
        assert result["backward_reduction_pct"] == result["predict_phases"] == 0
        assert result["speedup_counted"] < 1
        assert result["speedup_bound"] == 1.0
        assert reports[-1]["quality"] == 1.0

    def test_bound_is_never_exceeded(self):
        result = run()[0].result()
        assert 0 < result["speedup"] <= result["speedup_bound"]
        assert result["backward_reduction_pct"] == 100 * (1 - result["backward_calls"] / 120)

    def test_counted_speedup_is_that_of_the_frozen_costs(self):
        trial, reports = run()
        expected = speedup_counted(120, trial.trainer.meter.calls, COSTS)
        assert trial.result()["speedup_counted"] == reports[-1]["speedup_counted"] == expected

    @pytest.mark.parametrize("packed", [False, True])
    @pytest.mark.parametrize("batch_seconds", [0.0, 1.0, 3.0])
    def test_a_shut_gate_has_speedup_1_whatever_a_batch_costs(self, monkeypatch, batch_seconds, packed):
        workload = Clocked(monkeypatch, batch_seconds)
        nothing = dict.fromkeys(COST_NAMES, 0.0)
        prices = UnitCosts(**nothing | {"plain_step": 1.0, "batch": batch_seconds})
        trial = HybridRun(workload, SHUT, reference_run(workload, 0, 120, 10), prices, packed=packed)
        while not trial.done:
            report = trial.report()
        result = trial.result()
        for column in ("speedup", "speedup_counted", "speedup_bound"):
            assert result[column] == pytest.approx(1.0)
        assert report["speedup"] == pytest.approx(1.0)
        assert result["loading_share"] == pytest.approx(batch_seconds / (1 + batch_seconds))

    @pytest.mark.parametrize("settings", [{}, {"correction_interval": 4}, {"correct_steps": 0}], ids=str)
    @pytest.mark.parametrize("prefetching", [False, True])
    @pytest.mark.parametrize("batch_seconds", [0.0, 0.5, 1.0, 3.0])
    def test_speedup_is_what_a_clock_around_both_loops_says(
        self, monkeypatch, batch_seconds, prefetching, settings
    ):
        workload = Clocked(monkeypatch, batch_seconds, prefetching=prefetching)
        plain = start(workload, 0)
        began = workload.now
        for step in range(1, 121):
            plain(workload.batch(0, step))
        took = workload.now - began
        trial = HybridRun(
            workload,
            JUMPING.replace(**settings),
            reference_run(workload, 0, 120, 10),
            COSTS,
            report_every=120,
        )
        began = workload.now
        while not trial.done:
            trial.report()
        result = trial.result()
        assert result["predict_phases"] >= 2
        assert result["speedup"] == pytest.approx(took / (workload.now - began), rel=0.01)
        assert result["speedup"] <= result["speedup_bound"] * 1.001
        hidden = min(1.0, batch_seconds) if prefetching else 0.0
        expected = (batch_seconds - hidden) / (batch_seconds - hidden + 1)
        assert result["loading_share"] == pytest.approx(expected, abs=0.03)

    def test_by_cpu_time_a_loader_that_sleeps_costs_nothing(self, monkeypatch):
        workload = Clocked(monkeypatch, 3.0, sleeps=True)
        trial = HybridRun(workload, JUMPING, reference_run(workload, 0, 120, 10), COSTS)
        while not trial.done:
            trial.report()
        result, calls = trial.result(), trial.trainer.meter.calls
        assert result["speedup_cpu"] == pytest.approx(120 / (calls[Work.PLAIN] + calls[Work.FORWARD]))
        assert result["speedup"] == pytest.approx(120 * 4 / (4 * calls[Work.PLAIN] + 4 * calls[Work.FORWARD]))

    def test_where_no_cpu_time_was_sampled_its_column_is_empty(self):
        trial, _ = run()
        trial.trainer.meter._sampled = dict.fromkeys(Work, (0.0, 0.0))
        result = trial.result()
        assert result["speedup_cpu"] is None and result["speedup"] > 0

    def test_by_cpu_time_too_what_happens_once_counts_once(self, monkeypatch):
        now, passes = [0.0], iter([1000.0])
        workload = Toy()
        reference = reference_run(workload, 0, 120, 10)
        loss = workload.loss

        def slow(model, batch):
            now[0] += next(passes, 1.0)
            return loss(model, batch)

        workload.loss = slow
        monkeypatch.setattr(cost_meter.time, "perf_counter", lambda: now[0])
        monkeypatch.setattr(cost_meter.time, "thread_time", lambda: now[0])
        trial = HybridRun(workload, JUMPING, reference, COSTS)
        while not trial.done:
            trial.report()
        result = trial.result()
        assert result["speedup_cpu"] == pytest.approx(result["speedup"])
        assert 1 < result["speedup"] < 1.1

    @pytest.mark.parametrize("kind", ["accuracy_ratio", "loss_gap"])
    def test_other_kinds_of_quality(self, kind):
        result = run(workload=Toy(quality=kind), twins={})[0].result()
        assert 0 < result["quality"] < 1.1
        assert result["quality_vs_frozen"] > 0
        assert run(SHUT, Toy(quality=kind), twins={})[0].result()["quality_vs_frozen"] == 1.0


class TestAgainstItsTwins:
    def test_jumps_that_stand_still_are_their_own_twin(self):
        trial, _ = run(JUMPING.replace(predictor="frozen", minimum_cosine=-1.0), twins={})
        result = trial.result()
        assert result["predict_phases"] >= 3
        assert result["quality_vs_frozen"] == 1.0

    def test_it_is_the_ratio_of_both_losses(self):
        twins = {}
        result = run(twins=twins)[0].result()
        for (_, trace, arm), twin in twins.items():
            assert behaviour(trace) == result["behaviour"]
            expected = pytest.approx(twin.val_loss[-1] / result["val_loss"])
            assert result[f"quality_vs_{arm.name}"] == expected

    def test_the_matched_one_makes_up_for_the_steps_left_out(self):
        trial, _ = run(twins={})
        trace = trial.trainer.trace()
        matched = ControlTraining(Toy(), 0, ControlConfig(name="lr_matched"), steps=120, trace=trace).finish()
        frozen = ControlTraining(Toy(), 0, ControlConfig(name="frozen"), steps=120, trace=trace).finish()
        expected = pytest.approx(matched.val_loss[-1] / trial.result()["val_loss"])
        assert trial.result()["quality_vs_lr_matched"] == expected
        assert matched.val_loss[-1] < frozen.val_loss[-1]

    @pytest.mark.parametrize("kind", ["loss_ratio", "accuracy_ratio", "loss_gap"])
    def test_a_twin_that_diverges_is_infinitely_worse(self, kind, monkeypatch):
        diverged = Curve(steps=[9], backward_calls=[9], seconds=[0.0], val_loss=[math.inf])
        monkeypatch.setattr(trial_module.ControlTraining, "curve", lambda self: diverged)
        result = run(workload=Toy(quality=kind), twins={})[0].result()
        assert result["quality_vs_lr_matched"] == math.inf

    def test_a_twin_that_raises_leaves_its_column_empty_and_the_run_done(self, monkeypatch):
        def broken(workload, seed, arm, **options):
            if arm.name == "frozen":
                raise RuntimeError("the toy\nis broken")
            return ControlTraining(workload, seed, arm, **options)

        monkeypatch.setattr(trial_module, "ControlTraining", broken)
        trial, _ = run(twins={})
        result = trial.result()
        assert trial.state == "done"
        assert trial.reason == "no quality_vs_frozen: its run raised RuntimeError: the toy is broken"
        assert result["quality_vs_frozen"] is None and result["quality_vs_lr_matched"] > 0
        assert trial.result() == result and trial.reason.count("broken") == 1

    def test_trials_that_behave_alike_share_one(self):
        shared = {}
        one, _ = run(twins=shared)
        other, _ = run(JUMPING.replace(confidence_threshold=0.002), twins=shared)
        assert one.result()["behaviour"] == other.result()["behaviour"]
        assert one.result()["quality_vs_frozen"] == other.result()["quality_vs_frozen"]
        assert len(shared) == 2

    def test_it_can_be_left_out(self):
        result = run(twins=None)[0].result()
        assert result["quality_vs_frozen"] is result["quality_vs_lr_matched"] is None


class TestTelling:
    def test_a_report_a_cycle_to_the_last_step(self):
        trial, reports = run(JUMPING.replace(correction_interval=8))
        steps = [report["step"] for report in reports]
        assert steps == sorted(set(steps))
        assert steps[-1] == 120
        assert len(steps) >= 3
        assert {"phase", "loss", "val_loss", "quality", "speedup", "speedup_counted", "confidence"} <= set(
            reports[0]
        )
        assert {"realised_horizon", "micro_corrections", "divergence_events"} <= set(reports[0])
        assert reports[-1]["micro_corrections"] == trial.result()["micro_corrections"] > 0
        assert (trial.state, trial.reason) == ("done", "")

    @pytest.mark.parametrize("every", [50, 1000])
    def test_rare_reports_are_some_of_all_of_the_same_run(self, every):
        (trial, all_of_them), (rare, some) = run(), run(report_every=every)
        due = [next(r for r in all_of_them if r["step"] >= min(at, 120)) for at in range(every, 121, every)]
        kept = {"step", "val_loss", "quality", "speedup_counted", "backward_calls", "divergence_events"}
        expected = [*due, all_of_them[-1]]
        assert [{n: r[n] for n in kept} for r in some] == [{n: r[n] for n in kept} for r in expected]
        ours, theirs = counted(rare.result()), counted(trial.result())
        assert ours.pop("steps_to_target_ratio") >= theirs.pop("steps_to_target_ratio")  # seen later
        assert ours == theirs

    def test_the_result_has_the_columns_of_the_table(self):
        result = run(twins={})[0].result()
        known_to_the_journal = {"trial_id", "seed", "arm", "state", "reason", "attempts", "number", "source"}
        columns = [column.name for column in TRIAL_COLUMNS]
        assert list(result) == [name for name in columns if name not in known_to_the_journal]
        assert HybridConfig(**json.loads(result["config"])) == JUMPING

    def test_the_result_tells_how_far_confidence_is_to_be_trusted(self):
        trial, _ = run()
        result, scores = trial.result(), trial.trainer.planner.confidence.scores
        table = json.loads(result["reliability"])
        assert sum(row[0] for row in table) == len(scores) > 0
        assert 0 <= result["brier"] <= 1
        squares = [(confidence - confirmed) ** 2 for confidence, confirmed in scores]
        assert result["brier"] == pytest.approx(sum(squares) / len(squares))
        told = trial.trainer.training_statistics()
        for name, skill in (
            ("confidence_skill", told.confidence_skill),
            ("forecast_skill", told.forecast_skill),
        ):
            ends = {"": skill.value, "_low": skill.low, "_high": skill.high}
            for end, value in ends.items():
                assert result[name + end] == (None if math.isnan(value) else value)
        assert result["forecast_skill"] is not None

    def test_the_same_seed_gives_the_same_result(self):
        one, other = (run(twins={}, workload=Toy(dropout=0.3))[0].result() for _ in range(2))
        assert str(counted(one)) == str(counted(other))  # as text, since a NaN equals nothing

    def test_target_is_reached_by_plain_training_within_110_percent_of_its_steps(self):
        result = run(SHUT, steps=110)[0].result()
        assert result["steps_to_target_ratio"] <= 1.10

    def test_a_target_never_reached_is_infinitely_far(self):
        trial, _ = run()
        assert trial.result()["quality"] < 0.9
        assert trial.result()["steps_to_target_ratio"] == math.inf


class TestDiverging:
    def test_nan_after_a_jump(self):
        workload = Toy()
        reference = reference_run(workload, 0, 120, 10)
        workload.troubles = {20: "nan"}
        trial = HybridRun(workload, JUMPING, reference, COSTS, {})
        while not trial.done:
            report = trial.report()
        assert trial.state == "diverged"
        assert "nan" in trial.reason
        assert report["step"] < 120
        result = trial.result()
        assert result["quality"] == result["quality_vs_truncated"] == 0.0
        assert result["quality_vs_frozen"] is None
        assert result["rollbacks"] == JUMPING.max_rollbacks
        assert result["nonfinite_steps"] == JUMPING.max_rollbacks + 1

    def test_a_held_out_loss_that_is_no_number_at_the_end(self):
        workload = Toy()
        trial = HybridRun(workload, SHUT, reference_run(workload, 0, 120, 10), COSTS, {})
        workload.evaluate = lambda model, split: {"loss": math.nan}
        while not trial.done:
            trial.report()
        assert (trial.state, trial.reason) == ("diverged", "held-out loss is nan at the end")
        assert trial.result()["quality"] == 0.0

    def test_an_exception_of_the_users_code_is_not_a_divergence(self):
        workload = Toy()
        reference = reference_run(workload, 0, 120, 10)
        workload.troubles = {20: "raise"}
        trial = HybridRun(workload, JUMPING, reference, COSTS, {})
        with pytest.raises(RuntimeError, match="broken"):
            while not trial.done:
                trial.report()


class Curved(Toy):
    """Trained by an optimizer that evaluates its step several times."""

    def build_optimizer(self, model):
        return torch.optim.LBFGS(model.parameters(), lr=0.05, max_iter=3)


def test_the_reduction_of_an_optimizer_of_several_evaluations_is_that_of_its_steps():
    config = HybridConfig(
        warmup_steps=10, full_steps=5, max_predict_steps=20, confidence_threshold=0.001, minimum_cosine=-1.0,
        horizon_rule="fixed", guard_tolerance=1e9,
    )  # fmt: skip
    reference = reference_run(Curved(), 0, 120, 40)
    trial = HybridRun(Curved(), config, reference, COSTS)
    while not trial.done:
        report = trial.report()
    result = trial.result()
    real = sum(s.length for s in trial.trainer.trace() if s.phase in ("warmup", "full"))
    assert result["backward_reduction_pct"] == 100 * (1 - real / 120) > 0
    assert result["backward_calls"] > 120 > report["real_steps"] == real
    assert reference.passes > 2
    shorter = ControlRun(Curved(), ControlConfig(name="truncated"), 40, reference).result()
    assert shorter["backward_calls"] == round(40 * reference.passes)
    run = ControlTraining(Curved(), 0, ControlConfig(name="reference"), steps=40)
    assert run.finish().real_steps == 40
    assert run_hybrid(Curved(), 0, config, 120).real_steps == real
