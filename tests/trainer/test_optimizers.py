"""An optimizer trains as in the loop that its user would write, whatever it does with a closure."""

from functools import partial

import pytest
import torch
from support.problem import Problem
from torch import nn

from hybrid_sweep.errors import UserError
from hybrid_sweep.trainer.config import HybridConfig
from hybrid_sweep.trainer.optimizers import Several, as_optimizer, scaled_rates
from hybrid_sweep.trainer.train_step import TrainStep
from hybrid_sweep.trainer.trainer import HybridTrainer


class Own(torch.optim.Optimizer):
    def __init__(self, params, lr=0.05):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def move(self):
        for group in self.param_groups:
            for p in group["params"]:
                p.add_(p.grad, alpha=-group["lr"])


class TakesNone(Own):
    def step(self):
        self.move()


class ReturnsNothing(Own):
    @torch.no_grad()
    def step(self, closure=None):
        if closure is not None:
            closure()
        self.move()


class Ignores(Own):
    def step(self, closure=None):
        self.move()


class CallsLate(Own):
    """Calls the closure for its loss alone, when it has moved already."""

    def step(self, closure):
        self.move()
        return closure()


class SharpnessAware(Own):
    """As most implementations: the gradients are there, the closure computes those of the other point."""

    @torch.no_grad()
    def step(self, closure=None):
        parts = [p for group in self.param_groups for p in group["params"]]
        norm = torch.stack([p.grad.norm() for p in parts]).norm()
        ways = [0.05 * p.grad / norm for p in parts]
        torch.utils._pytree.tree_map(torch.Tensor.add_, parts, ways)
        self.zero_grad()
        with torch.enable_grad():
            closure()
        torch.utils._pytree.tree_map(torch.Tensor.sub_, parts, ways)
        self.move()


class ClosureTwice(SharpnessAware):
    """The same with a closure that is called for both points."""

    def step(self, closure=None):
        closure()
        super().step(closure)


class Sometimes(Own):
    calls = 0

    def step(self, closure=None):
        self.calls += 1
        if self.calls < 3:
            closure()
        self.move()


class Wrapped:
    """No torch optimizer: what wraps one."""

    def __init__(self, inner):
        self.inner = inner

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def step(self, closure=None):
        self.inner.step(closure)


def losses(optimizer_of, steps=6, **problem):
    """Return losses and step of training with an optimizer."""
    ours = Problem(dropout=0.3, norm=True, **problem)
    step = TrainStep(ours.model, optimizer_of(ours.model.parameters()), ours.loss)
    return [float(step(ours.batch(t))) for t in range(1, steps + 1)], step


SGD = partial(torch.optim.SGD, lr=0.05)


@pytest.mark.parametrize("kind", [TakesNone, ReturnsNothing, Ignores, lambda p: Wrapped(SGD(p))])
def test_each_is_the_plain_loop_to_the_last_bit(kind):
    found, step = losses(kind)
    assert found == losses(SGD)[0]
    assert (step.steps, step.backward_calls) == (6, 6)


def test_a_closure_called_late_is_computed_again():
    found, step = losses(CallsLate)
    assert found[0] == losses(SGD)[0][0]
    assert step.backward_calls == 12


@pytest.mark.parametrize("kind", [SharpnessAware, ClosureTwice])
def test_an_optimizer_that_moves_between_two_gradients(kind):
    ours, theirs = Problem(), Problem()
    step = TrainStep(ours.model, kind(ours.model.parameters()), ours.loss)
    parameters = list(theirs.model.parameters())
    for t in range(1, 6):
        loss = theirs.loss(theirs.model, theirs.batch(t))
        gradients = torch.autograd.grad(loss, parameters)
        norm = torch.stack([g.norm() for g in gradients]).norm()
        with torch.no_grad():
            for p, g in zip(parameters, gradients, strict=True):
                p.add_(0.05 * g / norm)
        second = torch.autograd.grad(theirs.loss(theirs.model, theirs.batch(t)), parameters)
        with torch.no_grad():
            for p, g, s in zip(parameters, gradients, second, strict=True):
                p.sub_(0.05 * g / norm).add_(s, alpha=-0.05)
        assert float(step(ours.batch(t))) == pytest.approx(float(loss.detach()), rel=1e-5)
    assert step.backward_calls == 10


def test_one_that_calls_its_closure_at_times_is_refused():
    with pytest.raises(UserError, match=r"Sometimes.step\(closure\) has called its closure in earlier steps"):
        losses(Sometimes)


class TestSeveral:
    def split(self, model):
        matrices = [p for p in model.parameters() if p.ndim == 2]
        return [
            torch.optim.Muon(matrices, lr=0.02),
            torch.optim.AdamW([p for p in model.parameters() if p.ndim < 2], lr=0.003),
        ]

    def test_they_step_after_one_backward_pass(self):
        ours, theirs = Problem(), Problem()
        step = TrainStep(ours.model, tuple(self.split(ours.model)), ours.loss)
        both = self.split(theirs.model)
        for t in range(1, 6):
            for optimizer in both:
                optimizer.zero_grad()
            loss = theirs.loss(theirs.model, theirs.batch(t))
            loss.backward()
            for optimizer in both:
                optimizer.step()
            assert float(step(ours.batch(t))) == float(loss)
        assert step.learning_rate == pytest.approx((0.02 + 0.003) / 2)

    def test_a_run_goes_back_and_on(self):
        def trainer():
            problem = Problem()
            optimizers = self.split(problem.model)
            schedules = [torch.optim.lr_scheduler.StepLR(o, 7, gamma=0.5) for o in optimizers]
            config = HybridConfig(warmup_steps=5, full_steps=5, max_predict_steps=6)
            made = HybridTrainer(
                problem.model, optimizers, config, loss_fn=problem.loss, lr_scheduler=schedules
            )
            return made, problem

        (one, problem), (other, _) = trainer(), trainer()
        one.run(problem.batch, 20)
        state = one.state_dict()
        one.run(problem.batch, 30)
        other.load_state_dict(state)
        other.run(problem.batch, 30)
        assert other.plain.learning_rate == one.plain.learning_rate < 0.003
        for a, b in zip(one.model.parameters(), other.model.parameters(), strict=True):
            assert torch.equal(a, b)
        one.rollback_to_checkpoint()
        one.run(problem.batch, 40)

    def test_lbfgs_beside_others_is_refused(self):
        model = Problem().model
        with pytest.raises(UserError, match="LBFGS evaluates the loss in its step"):
            Several([torch.optim.LBFGS([model[0].weight]), torch.optim.SGD([model[0].bias], lr=0.1)])


class TestWhatIsNeeded:
    def test_something_that_is_no_optimizer(self):
        with pytest.raises(UserError, match="the optimizer is a dict without param_groups, zero_grad, step"):
            as_optimizer({"adam": SGD([nn.Parameter(torch.ones(1))])})

    def test_a_group_without_a_learning_rate(self):
        optimizer = SGD([nn.Parameter(torch.ones(1))])
        optimizer.param_groups[0]["lr"] = None
        with pytest.raises(UserError, match="SGD has lr=None in its param_groups: a number is needed"):
            as_optimizer(optimizer)


def test_rates_are_scaled_within_and_put_back():
    optimizer = as_optimizer([SGD([nn.Parameter(torch.ones(1))]), SGD([nn.Parameter(torch.ones(1))], lr=0.1)])
    with scaled_rates(optimizer, 3.0):
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.15, 0.3])
    assert [group["lr"] for group in optimizer.param_groups] == [0.05, 0.1]


def test_a_backward_of_ones_own():
    problem, seen = Problem(), []

    def backward(loss):
        seen.append(float(loss))
        loss.backward()

    config = HybridConfig(warmup_steps=5, full_steps=5, max_predict_steps=6)
    trainer = HybridTrainer(problem.model, problem.optimizer, config, loss_fn=problem.loss, backward=backward)
    assert trainer.step(problem.batch(1)).loss == seen[0]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_loss_of_another_dtype(dtype):
    problem = Problem()
    whole = problem.loss
    problem.loss = lambda model, batch: whole(model, batch).to(dtype)
    config = HybridConfig(warmup_steps=5, full_steps=5, max_predict_steps=6)
    trainer = HybridTrainer(problem.model, problem.optimizer, config, loss_fn=problem.loss)
    assert trainer.run(problem.batch, 20).average_loss > 0
