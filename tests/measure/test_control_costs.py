"""What a step of a control costs beside the recipe's, on a clock that only the test moves."""

import pytest
import torch
from support.toy import Toy

from hybrid_sweep.control import ControlConfig, tuning_trials
from hybrid_sweep.measure import control_training
from hybrid_sweep.measure.cache import Cache
from hybrid_sweep.measure.control_costs import cost_class, step_ratios
from hybrid_sweep.measure.fingerprint import Fingerprint
from hybrid_sweep.measure.run_cache import RunCache
from hybrid_sweep.trainer import cost_meter

ARMS = [ControlConfig(name="lr", multiplier=3.0), *tuning_trials("tuned", 4, 0)]


@pytest.fixture
def workload(monkeypatch):
    """A loss takes a second and AdamW's step one more; evaluation takes an hour."""
    now = [0.0]

    class Timed(Toy):
        def loss(self, model, batch):
            now[0] += 1
            return super().loss(model, batch)

        def evaluate(self, model, split):
            now[0] += 3600
            return super().evaluate(model, split)

    usual = torch.optim.AdamW.step

    def slow(self, closure=None):
        now[0] += 1
        return usual(self, closure)

    monkeypatch.setattr(torch.optim.AdamW, "step", slow)
    monkeypatch.setattr(cost_meter.time, "perf_counter", lambda: now[0])
    return Timed()


@pytest.fixture
def runs(tmp_path):
    return RunCache(Fingerprint(Toy(), {}), Cache(tmp_path))


def test_each_kind_of_step_is_timed_against_the_recipes(workload, runs):
    found = step_ratios(workload, 0, ARMS, 120, runs, fresh=False)
    assert found == pytest.approx({"lr": 1.0, "tuned sgd": 1.0, "tuned adamw": 2.0})


def test_an_average_costs_in_its_tail_alone(workload, runs, monkeypatch):
    usual = control_training.WeightAverage.observe

    def slow(self):
        workload.loss(workload.build_model(0), workload.draw(0))  # a second more
        usual(self)

    monkeypatch.setattr(control_training.WeightAverage, "observe", slow)
    found = step_ratios(workload, 0, [ControlConfig(name="average")], 300, runs, fresh=True)
    assert found == pytest.approx({"average": (3 + 2) / 4}, rel=0.01)


def test_a_busy_machine_changes_no_ratio(workload, runs):
    """Every third forward pass is delayed, by what the recipe and the control do not share."""
    loss, passes = workload.loss, []

    def delayed(model, batch):
        passes.append(batch)
        for _ in range(40 if len(passes) % 90 > 30 else 1):
            found = loss(model, batch)
        return found

    workload.loss = delayed
    assert step_ratios(workload, 0, ARMS, 300, runs, fresh=True)["tuned adamw"] == pytest.approx(2.0)


def test_a_second_sweep_takes_what_the_first_has_timed_unless_told_to_time_it_again(workload, runs):
    step_ratios(workload, 0, ARMS, 120, runs, fresh=False)
    workload.batch = None
    assert step_ratios(workload, 0, ARMS, 120, runs, fresh=False)["tuned adamw"] == pytest.approx(2.0)
    with pytest.raises(TypeError):
        step_ratios(workload, 0, ARMS, 120, runs, fresh=True)


def test_no_batch_beyond_the_run_is_asked_for(workload, runs):
    asked = []
    batch = workload.batch
    workload.batch = lambda seed, step: asked.append(step) or batch(seed, step)
    assert step_ratios(workload, 0, ARMS, 7, runs, fresh=False)["tuned adamw"] == pytest.approx(2.0)
    assert max(asked) == 7


def test_what_does_not_apply_or_is_the_recipe_has_no_cost(workload, runs):
    workload.build_optimizer = lambda model: torch.optim.Adam(model.parameters())
    given = [
        ControlConfig(name="momentum", multiplier=3.0),
        ControlConfig(name="lr_matched"),
        ControlConfig(name="truncated"),
    ]
    assert step_ratios(workload, 0, given, 120, runs, fresh=False) == {}


def test_an_optimizer_is_a_class_of_its_own_where_the_arm_has_one():
    assert cost_class(ControlConfig(name="tuned", optimizer="adamw")) == "tuned adamw"
    assert (
        cost_class(ControlConfig(name="lr", multiplier=2.0)) == cost_class(ControlConfig(name="lr")) == "lr"
    )


@pytest.mark.parametrize("steps", [600, 3_000])
def test_long_steps_are_timed_for_a_tenth_of_plain_training_at_most(workload, runs, steps):
    passes, told = [], []
    usual = workload.loss

    def loss(model, batch):
        passes.append(batch)
        return usual(model, batch)

    workload.loss = loss
    found = step_ratios(
        workload,
        0,
        ARMS,
        steps,
        runs,
        fresh=True,
        a_step=1.0,
        on_progress=lambda *progress: told.append(progress),
    )
    assert found["tuned adamw"] == pytest.approx(2.0)
    assert len(passes) <= 0.1 * steps
    assert told == [(0, 3), (1, 3), (2, 3)]
