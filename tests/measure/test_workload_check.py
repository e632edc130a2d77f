"""What does not repeat is found, by a sentence that says how to put it right; what repeats is left alone."""

import itertools
import random

import numpy as np
import pytest
import torch
from support.toy import Toy

from hybrid_sweep.errors import UserError
from hybrid_sweep.measure.workload_check import refuse, repeats


class Goes(Toy):
    """Goes through its batches, whatever it is asked for."""

    def __init__(self):
        super().__init__()
        self.count = itertools.count()

    def batch(self, seed, step):
        return self.draw(next(self.count))


class DrawsGlobally(Toy):
    def batch(self, seed, step):
        x, y = super().batch(seed, step)
        return x + 0.1 * torch.randn(x.shape), y


class DrawsWithNumpy(Toy):
    def batch(self, seed, step):
        return self.draw(int(np.random.randint(1000)))


class KeepsAnEpoch(Toy):
    """Shuffles whenever an epoch begins, so its batches depend on what was asked for before."""

    generator = torch.Generator()

    def batch(self, seed, step):
        if step == 1:
            self.order = torch.randperm(self.steps, generator=self.generator)
        return self.draw(int(self.order[step - 1]))

    def __init__(self):
        super().__init__()
        self.order = torch.arange(self.steps)


class ConsumesAGenerator(Toy):
    """One generator for all, seeded when it is built: the same from a new instance only in the same order."""

    def __init__(self):
        super().__init__()
        self.generator = torch.Generator().manual_seed(1)

    def batch(self, seed, step):
        return torch.randn(32, 4, generator=self.generator), torch.ones(32, 1)


class OwnData(Toy):
    """Draws its data when it is built, without a seed: each worker has others."""

    def __init__(self):
        super().__init__()
        self.shift = random.random()

    def batch(self, seed, step):
        x, y = super().batch(seed, step)
        return x, y + self.shift


class ChangesItsData(Toy):
    """Normalises in place what it keeps."""

    def __init__(self):
        super().__init__()
        self.x = torch.arange(128.0).reshape(32, 4)

    def batch(self, seed, step):
        self.x /= 2
        return self.x, torch.ones(32, 1)


class UnseededModel(Toy):
    def build_model(self, seed):
        super().build_model(seed)
        torch.seed()
        return torch.nn.Linear(4, 1)


class GlobalModel(Toy):
    def build_model(self, seed):
        return torch.nn.Linear(4, 1)


class EvaluatesInTraining(Toy):
    def __init__(self):
        super().__init__(dropout=0.5)

    def evaluate(self, model, split):
        x, y = self.draw(1)
        return {"loss": self.loss(model, (x, y)).item()}


class EvaluatesOnOtherRows(Toy):
    def draw(self, seed):
        return super().draw(int(torch.randint(1000, ())) if seed >= 7_000_000 else seed)


class CountsEvaluations(Toy):
    times = 0

    def evaluate(self, model, split):
        self.times += 1
        return {**super().evaluate(model, split), "times": self.times}


class Leaks(Toy):
    """Its BatchNorm learns from held-out data."""

    def __init__(self):
        super().__init__(norm=True)

    def evaluate(self, model, split):
        model.train()
        x, y = self.draw(1)
        with torch.no_grad():
            return {"loss": self.loss(model, (x, y)).item()}


class CountsInABuffer(Toy):
    def build_model(self, seed):
        model = super().build_model(seed)
        model.register_buffer("evaluations", torch.zeros(()))
        return model

    def evaluate(self, model, split):
        model.evaluations += 1
        return super().evaluate(model, split)


class Lock:
    def __reduce_ex__(self, protocol):
        raise TypeError("a lock")


class Opaque(Toy):
    def batch(self, seed, step):
        return (*super().batch(seed, step), Lock())


def states(workload, rebuild=None):
    return {found.about: found.state for found in repeats(workload, rebuild)}


@pytest.mark.parametrize(
    "kind", [Goes, DrawsGlobally, DrawsWithNumpy, KeepsAnEpoch, ConsumesAGenerator, OwnData, ChangesItsData]
)
def test_another_batch_is_found(kind):
    with pytest.raises(
        UserError, match=r"^batch\(seed, step\) gives another batch when.*\(seed \* 1_000_003"
    ):
        refuse(repeats(kind(), kind))


@pytest.mark.parametrize("kind", [UnseededModel, GlobalModel])
def test_another_model_is_found(kind):
    with pytest.raises(UserError, match=r"^build_model\(seed\) gives other.*torch\.manual_seed\(seed\)"):
        refuse(repeats(kind(), kind))


@pytest.mark.parametrize("kind", [EvaluatesInTraining, EvaluatesOnOtherRows, CountsEvaluations])
def test_another_evaluation_is_found(kind):
    with pytest.raises(UserError, match=r"^evaluate\(model, split\) gives another .*model\.eval\(\)"):
        refuse(repeats(kind(), kind))


@pytest.mark.parametrize(("kind", "name"), [(Leaks, "1.running_mean"), (CountsInABuffer, "evaluations")])
def test_an_evaluation_that_leaves_a_trace_is_found(kind, name):
    with pytest.raises(UserError, match=rf"^evaluate\(model, split\) changes the model \({name}"):
        refuse(repeats(kind(), kind))


@pytest.mark.parametrize("keywords", [{}, {"dropout": 0.5}, {"norm": True}])
def test_what_repeats_is_left_alone(keywords):
    def make():
        return Toy(**keywords)

    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    assert set(states(make(), make).values()) == {"ok"}
    assert torch.rand(1) == expected


def test_data_of_its_own_are_found_only_beside_another_one():
    assert set(states(OwnData()).values()) == {"ok"}


def test_a_batch_without_content_is_named_and_runs():
    model, batches, *_ = refuse(repeats(Opaque()))
    assert (model.state, batches.state) == ("ok", "note")
    assert "(Lock)" in batches.said


def test_only_steps_of_the_run_are_asked_for():
    class Short(Toy):
        steps = 3

        def batch(self, seed, step):
            assert 1 <= step <= self.steps
            return super().batch(seed, step)

    for Short.steps in (1, 2, 3):
        assert set(states(Short()).values()) == {"ok"}
