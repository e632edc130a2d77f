"""A control as a trial of a sweep: in the same plane as the hybrid, told in the same logical steps."""

import math

import pytest
import torch
from support.sparse import Sparse
from support.toy import Toy

from hybrid_sweep.control import ControlConfig
from hybrid_sweep.measure.cache import Cache
from hybrid_sweep.measure.control_costs import step_ratios
from hybrid_sweep.measure.control_run import ControlRun
from hybrid_sweep.measure.control_training import ControlTraining
from hybrid_sweep.measure.fingerprint import Fingerprint
from hybrid_sweep.measure.reference import reference_run
from hybrid_sweep.measure.run_cache import RunCache
from hybrid_sweep.store.columns import TRIAL_COLUMNS
from hybrid_sweep.trainer import cost_meter


def timed(monkeypatch, batch_seconds):
    """Return a workload whose loss takes a second of a clock that nothing else but its batches moves."""
    now = [0.0]

    class Timed(Toy):
        def batch(self, seed, step):
            now[0] += batch_seconds
            return super().batch(seed, step)

        def loss(self, model, batch):
            now[0] += 1.0
            return super().loss(model, batch)

    monkeypatch.setattr(cost_meter.time, "perf_counter", lambda: now[0])
    return Timed()


def run(arm, steps=40, workload=None, **options):
    """Return the finished trial and its reports; the reference has 120 steps."""
    workload = workload or Toy()
    trial = ControlRun(workload, arm, steps, reference_run(workload, 0, 120, 10), **options)
    reports = []
    while not trial.done:
        reports.append(trial.report())
    return trial, reports


def test_quality_and_speed_are_those_of_the_logical_steps_that_it_stands_for():
    trial, reports = run(ControlConfig(name="lr", multiplier=3.0, schedule_steps=120))
    result = trial.result()
    alone = ControlTraining(Toy(), 0, ControlConfig(name="lr", multiplier=3.0), steps=40).finish()
    reference = reference_run(Toy(), 0, 120, 10)
    assert (trial.state, result["steps"], result["backward_calls"]) == ("done", 120, 40)
    assert result["val_loss"] == alone.val_loss[-1]
    assert result["quality"] == reference.val_loss[-1] / alone.val_loss[-1]
    assert result["speedup_counted"] == pytest.approx(120 / 40)
    assert 0 < result["speedup"] < 3.5
    assert [report["step"] for report in reports] == [30, 60, 90, 120]
    assert reports[-1]["quality"] == result["quality"]


def test_a_control_whose_step_costs_more_than_the_recipes_is_slower():
    result = run(ControlConfig(name="tuned", optimizer="adamw", lr=0.01), step_ratio=2.0)[0].result()
    assert result["speedup_counted"] == pytest.approx(120 / (40 * 2.0))
    assert 0 < result["speedup"] < 3.5 / 2


@pytest.mark.parametrize("batch_seconds", [0.0, 1.0, 3.0])
def test_the_recipe_over_all_its_steps_is_not_faster_whatever_a_batch_costs(monkeypatch, batch_seconds):
    workload = timed(monkeypatch, batch_seconds)
    result = run(ControlConfig(name="lr", multiplier=1.0), steps=120, workload=workload)[0].result()
    assert result["speedup"] == result["speedup_counted"] == pytest.approx(1.0)
    assert result["loading_share"] == pytest.approx(batch_seconds / (1 + batch_seconds))


def test_a_control_that_was_kept_has_the_speed_of_its_run(monkeypatch, tmp_path):
    workload = timed(monkeypatch, 3.0)
    runs = RunCache(Fingerprint(Toy(), {}), Cache(tmp_path))
    first, again = (run(ControlConfig(name="average"), workload=workload, runs=runs)[0] for _ in range(2))
    assert again.from_cache and not first.from_cache
    assert again.result() == first.result()


def test_truncated_is_read_from_the_reference_and_trains_nothing():
    loaded = []

    class Watched(Toy):
        def batch(self, seed, step):
            loaded.append(step)
            return super().batch(seed, step)

    reference = reference_run(Toy(), 0, 120, 10)
    trial = ControlRun(Watched(), ControlConfig(name="truncated"), 40, reference)
    result = trial.result()
    assert trial.done and not loaded
    assert result["quality"] == reference.val_loss[-1] / reference.val_loss[4]
    assert result["speedup"] == result["speedup_counted"] == pytest.approx(120 / 40)


def test_a_rate_that_is_too_high_is_a_divergence():
    trial, reports = run(ControlConfig(name="lr", multiplier=1e9))
    assert (trial.state, trial.result()["quality"]) == ("diverged", 0.0)
    assert math.isinf(reports[-1]["val_loss"])


def test_an_arm_that_does_not_apply_is_pruned_with_its_reason():
    class Adam(Toy):
        def build_optimizer(self, model):
            return torch.optim.Adam(model.parameters())

    trial, reports = run(ControlConfig(name="momentum", multiplier=3.0), workload=Adam())
    assert (trial.state, trial.result(), reports) == ("pruned", {}, [])
    assert "SGD without momentum" in trial.reason


def test_the_result_has_columns_of_the_table():
    assert run(ControlConfig(name="average"))[0].result().keys() <= {column.name for column in TRIAL_COLUMNS}


@pytest.mark.parametrize("quality", ["accuracy_ratio", "loss_gap"])
def test_other_kinds_of_quality(quality):
    same = run(ControlConfig(name="lr", multiplier=1.0), steps=120, workload=Toy(quality=quality))[0]
    assert same.result()["quality"] == 1.0


def test_a_control_that_fails_at_its_first_step_is_left_out_with_its_reason():
    workload = Sparse()
    reference = reference_run(workload, 0, 40, 10)
    trial = ControlRun(workload, ControlConfig(name="tuned", optimizer="adamw", lr=0.01), 20, reference)
    assert trial.report() is None
    assert (trial.done, trial.state, trial.result()) == (True, "pruned", {})
    assert "'tuned' cannot train this recipe (RuntimeError: Adam does not support sparse" in trial.reason
    assert step_ratios(
        workload,
        0,
        [ControlConfig(name="tuned", optimizer="adamw", lr=0.01)],
        40,
        RunCache(Fingerprint(workload, {})),
        fresh=True,
    ) == {}  # fmt: skip
