"""Which part of a gradient is watched, and that its norm is the norm of that part."""

import pytest
import torch
from support.problem import Problem
from torch import nn

from hybrid_sweep.trainer.gradient_watch import LARGEST_PART, PARTS, GradientWatch, norm_of
from hybrid_sweep.trainer.train_step import TrainStep


def plain(model, inputs=8, **settings):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    step = TrainStep(model, optimizer, lambda model, x: model(x).square().mean(), **settings)
    step(torch.ones(4, inputs))
    return step


def test_it_is_the_norm_of_the_small_parameters(problem):
    step = TrainStep(problem.model, problem.optimizer, problem.loss)
    step(problem.batch(1))
    whole = sum(p.grad.square().sum() for p in problem.model.parameters()).sqrt()
    torch.testing.assert_close(norm_of(GradientWatch(step).take(1)), whole)


def test_at_most_eight_parameters_are_read_from_the_first_layer_to_the_last():
    model = nn.Sequential(*(nn.Linear(8, 8) for _ in range(30)))
    step = plain(model)
    parameters = list(model.parameters())
    for p in parameters:
        p.grad = torch.zeros_like(p)
    watch, seen = GradientWatch(step), []
    for i, p in enumerate(parameters):
        p.grad.fill_(1.0)
        if norm_of(watch.take(1)) > 0:
            seen.append(i)
        p.grad.zero_()
    assert len(seen) <= PARTS
    assert seen[0] <= 7
    assert seen[-1] >= 52


def test_a_large_parameter_is_left_to_the_whole_norm():
    model = nn.Sequential(nn.Linear(LARGEST_PART, 2), nn.Linear(2, 1))
    step = plain(model, LARGEST_PART)
    model[0].weight.grad.fill_(1e9)
    assert norm_of(GradientWatch(step).take(1)) < 1e6
    alone = plain(nn.Linear(LARGEST_PART + 1, 1, bias=False), LARGEST_PART + 1)
    assert GradientWatch(alone).take(1) is None


@pytest.mark.parametrize("limit", [1e-3, 1e3])
def test_where_gradients_are_clipped_it_is_their_whole_norm_before(limit):
    step, same = plain(nn.Linear(8, 1), max_grad_norm=limit), plain(nn.Linear(8, 1))
    same.model.load_state_dict(step.model.state_dict())
    step(torch.ones(4, 8)), same(torch.ones(4, 8))
    assert float(norm_of(GradientWatch(step).take(1))) == pytest.approx(same.gradient_norm())


def test_a_frozen_parameter_and_a_sparse_gradient_are_no_trouble():
    model = nn.Sequential(nn.Embedding(9, 3, sparse=True), nn.Flatten(), nn.Linear(6, 1))
    step = TrainStep(
        model, torch.optim.SGD(model.parameters(), lr=0.1), lambda model, x: model(x).square().mean()
    )
    step(torch.tensor([[1, 1]]))
    watch = GradientWatch(step)
    assert float(norm_of(watch.take(1))) == pytest.approx(step.gradient_norm())
    for p in model.parameters():
        p.grad = None
    assert watch.take(1) is None


def test_half_precision_does_not_overflow():
    problem = Problem()
    model = problem.model.bfloat16()
    step = TrainStep(model, torch.optim.SGD(model.parameters(), lr=0.0), problem.loss)
    step([part.bfloat16() for part in problem.batch(1)])
    assert norm_of(GradientWatch(step).take(1)).dtype is torch.float32
