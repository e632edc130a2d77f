"""What of a recipe shows before a run, and what a run will cost, as far as it is measured."""

import pytest
import torch
from support.toy import Toy
from torch.optim import lr_scheduler

from hybrid_sweep.measure.preflight import Cost, cost_of, preflight


class Frozen(Toy):
    def build_model(self, seed):
        model = super().build_model(seed)
        model[0].weight.requires_grad = False
        return model.double()

    def batch(self, seed, step):
        return tuple(part.double() for part in super().batch(seed, step))

    def evaluate(self, model, split):
        return {"loss": 1.0}


class LeftOut(Toy):
    def build_optimizer(self, model):
        return torch.optim.SGD([model[0].weight], lr=0.005)


class SeesGradients(Toy):
    def loss(self, model, batch):
        return super().loss(model, batch) * (2 if torch.is_grad_enabled() else 1)


class Differentiates(Toy):
    def loss(self, model, batch):
        x = batch[0].clone().requires_grad_()
        (slope,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
        return super().loss(model, batch) + (slope**2).mean()


class Short(Toy):
    def build_scheduler(self, optimizer):
        return lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=50)


class Scheduled(Toy):
    def build_scheduler(self, optimizer):
        return lr_scheduler.StepLR(optimizer, 60, 0.1)


class Breaks(Toy):
    def loss(self, model, batch):
        raise KeyError("labels")


class Negative(Toy):
    def evaluate(self, model, split):
        return {"loss": -1.0}


class Infinite(Toy):
    def evaluate(self, model, split):
        return {"loss": float("inf")}


class NoLoss(Toy):
    def evaluate(self, model, split):
        return {"auc": 0.5}


def found(workload, about):
    return {each.about: each for each in preflight(workload, workload.steps)}[about]


@pytest.mark.parametrize(
    ("workload", "about", "state", "said"),
    [
        (Toy(), "trained", "ok", "49 parameters are trained (float32 on cpu), 0 are frozen"),
        (Frozen(), "trained", "ok", "17 parameters are trained (float64 on cpu), 32 are frozen"),
        (LeftOut(), "trained", "note", "3 tensors want a gradient and are in no group"),
        (Toy(dropout=0.5, norm=True), "loss", "ok", "the same without gradients"),
        (Differentiates(), "loss", "ok", "the same without gradients"),
        (SeesGradients(), "loss", "note", "torch.is_grad_enabled()"),
        (Breaks(), "loss", "problem", "the workload raises KeyError: 'labels'"),
        (Toy(), "schedule", "ok", "the learning rate is 0.005 throughout"),
        (Scheduled(), "schedule", "ok", "StepLR, for all 120 steps: learning rate 0.005 at first, 5e-05"),
        (Short(), "schedule", "problem", "OneCycleLR ends after"),
        (Toy(), "results", "ok", "compared by loss_ratio"),
        (Negative(), "results", "problem", "is not above 0"),
        (Infinite(), "results", "problem", "held-out loss of inf"),
        (NoLoss(), "results", "problem", "returns no 'loss'"),
    ],
)
def test_what_shows_is_told(workload, about, state, said):
    one = found(workload, about)
    assert one.state == state
    assert said in one.said


def test_a_schedule_that_the_steps_of_the_sweep_do_not_reach():
    class Stuck(Toy):
        def build_scheduler(self, optimizer):
            return lr_scheduler.CosineAnnealingLR(optimizer, T_max=120)

    workload = Stuck()
    workload.steps = 90
    (one,) = (each for each in preflight(workload, 90, 120) if each.about == "schedule")
    assert one.state == "note"
    assert "steps=90 does not reach the learning-rate schedule of Stuck" in one.said


def test_random_numbers_are_left_as_they_were():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    list(preflight(Toy(dropout=0.5), 120))
    cost_of(Toy(dropout=0.5))
    assert torch.rand(1) == expected


def test_costs_are_those_that_the_clock_shows(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("hybrid_sweep.measure.preflight.time.perf_counter", lambda: now[0])

    class Slow(Toy):
        def batch(self, seed, step):
            now[0] += 0.25
            return super().batch(seed, step)

        def loss(self, model, batch):
            now[0] += 0.5
            return super().loss(model, batch)

        def evaluate(self, model, split):
            now[0] += 2.0
            return {"loss": 1.0}

    cost = cost_of(Slow())
    assert (cost.step, cost.loading, cost.evaluation) == (0.75, 0.25, 2.0)
    assert cost.peak_bytes > 50e6


def test_a_run_costs_its_steps_and_evaluations():
    cost = Cost(step=0.5, loading=0.1, evaluation=3.0, peak_bytes=1)
    assert cost.run_seconds(100, 25) == 100 * 0.5 + 5 * 3.0
