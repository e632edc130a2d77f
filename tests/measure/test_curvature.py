"""Learning rate × curvature: against spectra that are known, and without a trace in what is trained."""

import random

import numpy as np
import pytest
import torch
from support.toy import Toy
from torch import nn

from hybrid_sweep.errors import UserError
from hybrid_sweep.measure import curvature as module
from hybrid_sweep.measure.curvature import Curvature, largest_eta_lambda, measure_curvature
from hybrid_sweep.measure.reference import reference_run, start
from hybrid_sweep.trainer.random_state import seed_random_state
from hybrid_sweep.trainer.train_step import TrainStep

SPECTRUM = torch.tensor([0.1, 3.0, 7.0, 11.0])


class Quadratic(nn.Module):
    def __init__(self, spectrum=SPECTRUM):
        super().__init__()
        self.theta = nn.Parameter(torch.ones(len(spectrum)))
        self.spectrum = spectrum

    def loss(self, batch):
        return (self.spectrum * self.theta**2).sum() / 2


def plain(optimizer, spectrum=SPECTRUM, steps=0):
    net = Quadratic(spectrum)
    step = TrainStep(net, optimizer(net.parameters()), Quadratic.loss)
    for _ in range(steps):
        step(None)
    return step


def edge(optimizer, limit, **options):
    """Return ηλ just below and above the edge: does training on one mode of that curvature grow?"""
    ends = []
    for share in (0.98, 1.02):
        net = Quadratic(torch.tensor([1.0]))
        step = TrainStep(net, optimizer(net.parameters(), lr=share * limit, **options), Quadratic.loss)
        found = largest_eta_lambda(step, [None])
        for _ in range(2000):
            step(None)
        ends.append((found, not net.theta.abs().item() < 1))
    return ends


class TestOfAKnownSpectrum:
    def test_gradient_descent(self):
        found = largest_eta_lambda(plain(lambda p: torch.optim.SGD(p, lr=0.05)), [None])
        assert found == pytest.approx(0.05 * 11, rel=0.01)

    def test_the_largest_and_not_the_one_of_largest_magnitude(self):
        spectrum = torch.tensor([-20.0, 1.0, 4.0])
        found = largest_eta_lambda(plain(lambda p: torch.optim.SGD(p, lr=0.1), spectrum), [None])
        assert found == pytest.approx(0.4, rel=0.02)

    def test_batches_are_averaged(self):
        net = Quadratic()
        step = TrainStep(net, torch.optim.SGD(net.parameters(), lr=1.0), lambda m, c: c * m.loss(None))
        assert largest_eta_lambda(step, [1.0, 3.0]) == pytest.approx(22, rel=0.01)

    @pytest.mark.parametrize(
        ("limit", "options"),
        [
            (2.0, {}),
            (2 * 1.9, {"momentum": 0.9}),
            (2 * 1.9 / 2.8, {"momentum": 0.9, "nesterov": True}),
            (2 * 1.5 / 0.5, {"momentum": 0.5, "dampening": 0.5}),
        ],
    )
    def test_two_is_the_edge_of_stability_with_momentum_too(self, limit, options):
        (below, calm), (above, grown) = edge(torch.optim.SGD, limit, **options)
        assert below == pytest.approx(1.96, rel=0.01) and above == pytest.approx(2.04, rel=0.01)
        assert not calm and grown

    def test_weight_decay_curves_too(self):
        found = largest_eta_lambda(plain(lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=2.0)), [None])
        assert found == pytest.approx(0.1 * 13, rel=0.01)

    @pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
    def test_adam_is_preconditioned_by_the_steps_it_took(self, kind):
        step = plain(lambda p: kind(p, lr=1e-4, betas=(0.9, 0.999), eps=0.0), steps=20)
        # gradients hardly change in 20 such steps, so √v̂ is λ·θ and every mode has curvature 1/θ
        assert largest_eta_lambda(step, [None]) == pytest.approx(1e-4 * 0.1 / 1.9, rel=0.02)

    def test_groups_have_their_own_rates(self):
        net = nn.Sequential(Quadratic(torch.tensor([4.0])), Quadratic(torch.tensor([3.0])))
        groups = [{"params": net[0].parameters(), "lr": 0.1}, {"params": net[1].parameters(), "lr": 0.2}]
        step = TrainStep(net, torch.optim.SGD(groups), lambda m, _: m[0].loss(None) + m[1].loss(None))
        assert largest_eta_lambda(step, [None]) == pytest.approx(0.6, rel=0.01)

    def test_a_loss_without_curvature(self):
        net = Quadratic()
        step = TrainStep(net, torch.optim.SGD(net.parameters(), lr=0.1), lambda m, _: m.theta.sum())
        assert largest_eta_lambda(step, [None]) == 0.0

    def test_another_optimizer_is_not_guessed_at(self):
        with pytest.raises(UserError, match=r"edge of stability of RMSprop is not known, only of SGD, Adam"):
            largest_eta_lambda(plain(torch.optim.RMSprop), [None])


class TestAlongARun:
    def test_where_it_is_measured_and_the_same_again(self):
        found = measure_curvature(Toy(dropout=0.5), 3, 40)
        assert found.steps == [4, 12, 20, 28, 36]
        assert found == measure_curvature(Toy(dropout=0.5), 3, 40)
        assert all(0 < value < 2 for value in found.eta_lambda)
        assert measure_curvature(Toy(), 0, 1).steps == [1]

    def test_training_is_the_same_with_and_without(self, monkeypatch):
        """Also with dropout, which draws global random numbers, and buffers that a forward pass moves."""
        toy = Toy(dropout=0.5, norm=True)
        trained = []
        monkeypatch.setattr(module, "start", lambda *given: trained.append(start(*given)) or trained[-1])
        assert measure_curvature(toy, 0, 40).eta_lambda
        expected = start(toy, 0)
        for step in range(1, 37):
            expected(toy.batch(0, step))
        for name, value in expected.model.state_dict().items():
            assert torch.equal(value, trained[0].model.state_dict()[name]), name

    def test_the_global_random_numbers_are_left_alone(self):
        def draws():
            return random.random(), np.random.random(), torch.rand(1).item()

        seed_random_state(7)
        expected = draws()
        seed_random_state(7)
        measure_curvature(Toy(dropout=0.5), 0, 40)
        assert draws() == expected

    def test_a_reference_after_it_is_the_same(self):
        toy = Toy(dropout=0.5, norm=True)
        before = reference_run(toy, 0, 40, 10)
        measure_curvature(toy, 0, 40)
        assert reference_run(toy, 0, 40, 10) == before

    def test_a_loss_that_cannot_be_differentiated_twice_says_so(self):
        class Once(torch.autograd.Function):
            @staticmethod
            def forward(context, x):
                return x * 2

            @staticmethod
            @torch.autograd.function.once_differentiable
            def backward(context, gradient):
                return gradient * 2

        class Custom(Toy):
            def loss(self, model, batch):
                return Once.apply(model(batch[0])).square().mean()

        found = measure_curvature(Custom(), 0, 40)
        assert (found.steps, found.eta_lambda) == ([], [])
        assert "once_differentiable" in found.why_not

    def test_a_curvature_that_is_not_finite_says_so(self):
        found = measure_curvature(Toy(troubles={0: "nan"}), 0, 40)
        assert found == Curvature(
            steps=[], eta_lambda=[], why_not="the curvature is nan along plain training"
        )
