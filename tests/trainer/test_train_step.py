"""TrainStep is the loop that anyone would write; `as_loader` takes batches in any form."""

import pytest
import torch
from support.problem import Problem
from torch import nn

from hybrid_sweep.errors import UserError
from hybrid_sweep.trainer.train_step import TrainStep, as_loader


def plain_step(problem, **keywords):
    return TrainStep(problem.model, problem.optimizer, problem.loss, **keywords)


class TestStep:
    def test_loss_weights_clipping_and_schedule_are_those_of_the_loop(self):
        ours, theirs = Problem(momentum=0.9), Problem(momentum=0.9)
        schedules = [torch.optim.lr_scheduler.StepLR(p.optimizer, 3, gamma=0.5) for p in (ours, theirs)]
        step = plain_step(ours, lr_scheduler=schedules[0], max_grad_norm=0.3)
        for t in range(1, 11):
            theirs.optimizer.zero_grad()
            loss = theirs.loss(theirs.model, theirs.batch(t))
            loss.backward()
            norm = nn.utils.clip_grad_norm_(theirs.model.parameters(), 0.3)
            theirs.optimizer.step()
            schedules[1].step()
            assert step(ours.batch(t)) == loss
            assert step.gradient_norm() == norm  # before clipping
        for a, b in zip(ours.model.parameters(), theirs.model.parameters(), strict=True):
            assert torch.equal(a, b)
        assert step.learning_rate == theirs.optimizer.param_groups[0]["lr"] < 0.05
        assert step.backward_calls == 10

    def test_gradient_norm_without_clipping(self, problem):
        step = plain_step(problem)
        step(problem.batch(1))
        squares = sum(p.grad.square().sum() for p in problem.model.parameters())
        assert step.gradient_norm() == pytest.approx(float(squares.sqrt()))

    def test_an_optimizer_that_evaluates_several_times_is_counted(self, problem):
        problem.optimizer = torch.optim.LBFGS(problem.model.parameters(), lr=0.01, max_iter=4)
        step = plain_step(problem)
        assert float(step(problem.batch(1))) > 0
        assert step.backward_calls > 1

    def test_sparse_gradients(self):
        torch.manual_seed(0)
        model = nn.ModuleDict({"embed": nn.Embedding(5, 3, sparse=True), "head": nn.Linear(3, 1)})
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        step = TrainStep(model, optimizer, lambda m, rows: m["head"](m["embed"](rows)).square().mean())
        step(torch.tensor([0, 1, 1]))
        assert model["embed"].weight.grad.is_sparse
        assert step.gradient_norm() > 0

    def test_parameters_that_are_frozen_or_unused(self, problem):
        problem.model[0].weight.requires_grad_(False)
        problem.model.unused = nn.Linear(2, 2)
        problem.loss = lambda model, batch: model[2](model[1](model[0](batch[0]))).square().mean()
        step = plain_step(problem)
        before = problem.model[0].weight.clone()
        step(problem.batch(1))
        assert step.gradient_norm() > 0
        assert torch.equal(problem.model[0].weight, before)


class TestSkip:
    def test_the_schedule_goes_on_without_training(self, problem):
        schedule = torch.optim.lr_scheduler.StepLR(problem.optimizer, 1, gamma=0.5)
        step = plain_step(problem, lr_scheduler=schedule)
        step(problem.batch(1))
        assert step.skip(2) == pytest.approx((0.025 + 0.0125) / 2)
        assert step.learning_rate == pytest.approx(0.00625)
        assert step.backward_calls == 1

    def test_without_a_schedule_the_rate_stays(self, problem):
        assert plain_step(problem).skip(100) == 0.05


class TestRefusing:
    def test_a_schedule_that_needs_a_metric(self, problem):
        with pytest.raises(UserError, match="ReduceLROnPlateau needs a metric"):
            plain_step(problem, lr_scheduler=torch.optim.lr_scheduler.ReduceLROnPlateau(problem.optimizer))

    def test_a_model_with_nothing_to_train(self, problem):
        problem.model.requires_grad_(False)
        with pytest.raises(UserError, match="no trainable parameter"):
            plain_step(problem)

    def test_an_optimizer_of_more_than_the_model(self, problem):
        temperature = nn.Parameter(torch.ones(()))
        problem.optimizer = torch.optim.SGD([*problem.model.parameters(), temperature], lr=0.1)
        with pytest.raises(UserError, match=r"parameters that the model does not have \(1\)"):
            plain_step(problem)

    @pytest.mark.parametrize("limit", [0.0, -1.0, float("nan")])
    def test_a_norm_that_is_none(self, problem, limit):
        with pytest.raises(UserError, match=f"max_grad_norm={limit} is not allowed: .* above 0"):
            plain_step(problem, max_grad_norm=limit)

    @pytest.mark.parametrize(
        ("loss", "told"),
        [
            (lambda loss: loss.item(), "a float"),
            (lambda loss: None, "a NoneType"),
            (lambda loss: (loss, loss), "a tuple"),
            (lambda loss: loss * torch.ones(2, 3), r"a tensor of shape \(2, 3\)"),
            (lambda loss: loss.long(), r"a tensor of shape \(\) without a gradient"),
        ],
    )
    def test_a_loss_that_is_no_scalar_with_a_gradient(self, problem, loss, told):
        whole = problem.loss
        problem.loss = lambda model, batch: loss(whole(model, batch))
        with pytest.raises(UserError, match=f"the loss is {told}: return a tensor of one number"):
            plain_step(problem)(problem.batch(1))

    def test_a_loss_of_one_element_will_do(self, problem):
        whole = problem.loss
        problem.loss = lambda model, batch: whole(model, batch).reshape(1, 1)
        assert plain_step(problem)(problem.batch(1)) > 0


class TestLoader:
    def test_a_callable_is_taken_as_it_is(self):
        assert [as_loader(lambda step: 10 * step)(s) for s in (1, 5)] == [10, 50]

    def test_a_sequence_wraps_around_from_step_one(self):
        load = as_loader(["a", "b", "c"])
        assert [load(step) for step in (1, 3, 4, 8)] == ["a", "c", "a", "b"]

    def test_a_loader_is_drawn_from_only_when_asked_and_started_again(self):
        data = torch.utils.data.DataLoader(torch.arange(3.0), batch_size=1)
        load = as_loader(data)
        assert [float(load(step)) for step in (1, 50, 51, 52)] == [0.0, 1.0, 2.0, 0.0]

    def test_an_iterator_that_ends(self):
        load = as_loader(iter([1]))
        assert load(1) == 1
        with pytest.raises(UserError, match="run out"):
            load(2)
