"""Sparse gradients have the norm of the dense ones, and are clipped like them."""

import pytest
import torch
from torch import nn

from hybrid_sweep.trainer.gradients import clip_
from hybrid_sweep.trainer.train_step import TrainStep


def embedding(sparse):
    torch.manual_seed(0)
    model = nn.ModuleDict({"embed": nn.Embedding(5, 3, sparse=sparse), "head": nn.Linear(3, 1)})

    def loss(model, rows):
        return 100 * model["head"](model["embed"](rows)).square().mean()

    return TrainStep(model, torch.optim.SGD(model.parameters(), lr=0.1), loss, max_grad_norm=0.5)


def test_sparse_gradients_are_clipped_as_dense_ones_are():
    steps = [embedding(sparse) for sparse in (True, False)]
    for rows in (torch.tensor([0, 1, 1]), torch.tensor([4, 1, 0, 0])):
        for step in steps:
            step(rows)
        norms = [step.gradient_norm() for step in steps]
        assert norms[0] == pytest.approx(norms[1])
        assert norms[0] > 0.5
    for a, b in zip(steps[0].parameters, steps[1].parameters, strict=True):
        assert torch.allclose(a, b)


def test_a_gradient_within_the_limit_stays():
    step = embedding(sparse=True)
    step.backward(step.loss_fn(step.model, torch.tensor([0, 1, 1])))
    before = step.parameters[0].grad.to_dense()
    clip_(step.parameters, 1e9)
    assert torch.equal(step.parameters[0].grad.to_dense(), before)


def test_the_norm_of_sparse_gradients_alone():
    model = nn.Embedding(5, 3, sparse=True)
    step = TrainStep(model, torch.optim.SGD(model.parameters(), lr=0.1), lambda m, rows: m(rows).sum())
    step(torch.tensor([2, 2]))
    assert step.gradient_norm() == pytest.approx(12**0.5)  # three values of 2
