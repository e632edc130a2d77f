"""State that a checkpoint does not hold is found by training on from one, and named."""

import numpy as np
import pytest
import torch
from support.toy import Toy
from torch import nn

from hybrid_sweep.measure.saved_whole import whole


class Counts(nn.Linear):
    calls = 0

    def forward(self, x):
        if self.training:
            self.calls += 1
        return super().forward(x) * (1 + 0.98**self.calls)


class KeepsItsCount(Counts):
    def get_extra_state(self):
        return self.calls

    def set_extra_state(self, state):
        self.calls = state


class Buffered(nn.Linear):
    """Its count is a buffer."""

    def __init__(self, persistent):
        super().__init__(4, 1)
        self.register_buffer("seen", torch.zeros(()), persistent=persistent)

    def forward(self, x):
        self.seen += 1
        return super().forward(x) / self.seen


class ScalesByItsFirstBatch(nn.Linear):
    """A buffer made in the first forward."""

    def forward(self, x):
        if not hasattr(self, "scale"):
            self.keep(x.std())
        return super().forward(x) * self.scale

    def keep(self, scale):
        self.register_buffer("scale", scale)


class HidesTheScale(ScalesByItsFirstBatch):
    def keep(self, scale):
        self.scale = scale


class Decays(torch.optim.SGD):
    """Counts its steps in an attribute."""

    taken = 0

    def step(self, closure=None):
        self.taken += 1
        for group in self.param_groups:
            group["lr"] = 0.01 * 0.9**self.taken
        return super().step(closure)


class KeepsFunctions(torch.optim.SGD):
    def state_dict(self):
        return {**super().state_dict(), "rule": lambda step: step}


class Forgets:
    """A schedule without a state."""

    def __init__(self, optimizer):
        self.optimizer, self.steps = optimizer, 0

    def step(self):
        self.steps += 1
        for group in self.optimizer.param_groups:
            group["lr"] = 0.01 / self.steps

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


class Made(Toy):
    """A workload of a model, an optimizer or a schedule that is given."""

    def __init__(self, model=None, optimizer=None, schedule=None):
        super().__init__()
        self.model, self.optimizer = model, optimizer
        if schedule:
            self.build_scheduler = schedule

    def build_model(self, seed):
        built = super().build_model(seed)
        torch.manual_seed(seed)
        return self.model() if self.model else built

    def build_optimizer(self, model):
        return (
            self.optimizer(model.parameters(), lr=0.005) if self.optimizer else super().build_optimizer(model)
        )


class Remembers(Toy):
    """Its loss is another one in each step of the workload's life."""

    calls = 0

    def loss(self, model, batch):
        self.calls += 1
        return super().loss(model, batch) * (1 + 0.9**self.calls)


class DrawsFromItsOwn(Toy):
    def __init__(self):
        super().__init__()
        self.numbers = np.random.default_rng(0)

    def loss(self, model, batch):
        return super().loss(model, batch) * (1 + self.numbers.random())


class RemembersARun(Remembers):
    """Begins from 0 with each model, but no checkpoint knows where it is."""

    def build_model(self, seed):
        self.calls = 0
        return super().build_model(seed)


def linear(kind):
    return lambda: kind(4, 1)


def states(workload):
    return {found.about: found.state for found in whole(workload)}


@pytest.mark.parametrize(
    ("workload", "such"),
    [
        (lambda: Made(linear(Counts)), "not in state_dict(), such as calls"),
        (lambda: Made(lambda: Buffered(False)), "not in state_dict()"),
        (lambda: Made(linear(ScalesByItsFirstBatch)), "cannot be loaded into a model that was just built"),
        (lambda: Made(linear(HidesTheScale)), "not in state_dict(), such as scale"),
        (lambda: Made(None, Decays), "not in state_dict(), such as optimizer 0.taken"),
        (lambda: Made(None, KeepsFunctions), "the run cannot be saved, its state holds more than data"),
        (lambda: Made(None, None, Forgets), "not in state_dict(), such as schedule.steps"),
        (RemembersARun, "not in state_dict()"),
    ],
)
def test_state_that_is_not_saved_is_told_of(workload, such):
    training, state = whole(workload())
    assert training.state == "ok"
    assert state.state == "note"
    assert such in state.said
    assert "nothing of this sweep is shared, a run that is resumed begins from its start" in state.said


@pytest.mark.parametrize("kind", [Remembers, DrawsFromItsOwn])
def test_a_workload_that_remembers_earlier_runs_is_a_problem(kind):
    (found,) = whole(kind())
    assert found.state == "problem"
    assert found.said.startswith("the same seed trains otherwise when it is started again")


@pytest.mark.parametrize(
    "workload",
    [
        Toy,
        lambda: Toy(dropout=0.5, norm=True),
        lambda: Toy(troubles={0: "nan"}),
        lambda: Made(linear(KeepsItsCount)),
        lambda: Made(lambda: Buffered(True)),
        lambda: Made(None, torch.optim.Adam),
        lambda: Made(None, torch.optim.LBFGS),
        lambda: Made(None, lambda *p, lr: torch.optim.SGD(*p, lr=lr, momentum=0.9)),
        lambda: Made(None, None, lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 3)),
    ],
)
def test_what_is_saved_whole_is_left_alone(workload):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    assert states(workload()) == {"training": "ok", "saved state": "ok"}
    assert torch.rand(1) == expected


def test_a_run_of_a_step_is_looked_at_too():
    for Made.steps in (1, 2, 3):
        assert states(Made(linear(Counts)))["training"] == "ok"
    Made.steps = Toy.steps
