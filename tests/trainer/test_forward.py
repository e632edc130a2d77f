"""A forward pass looks and changes nothing, whether or not the loss needs gradients itself."""

import pytest
import torch
from support.problem import Problem
from torch import nn

from hybrid_sweep.trainer.config import HybridConfig
from hybrid_sweep.trainer.phases import Phase
from hybrid_sweep.trainer.train_step import TrainStep
from hybrid_sweep.trainer.trainer import HybridTrainer


def residual(model, batch):
    """Return the loss of a differential equation, as in a PINN: u' = u + cos."""
    x = batch[0].clone().requires_grad_(True)
    u = model(x)
    (slope,) = torch.autograd.grad(u.sum(), x, create_graph=True)
    return (slope.sum(1, keepdim=True) - u - x.cos().sum(1, keepdim=True)).square().mean()


def penalised(model, batch):
    """Return a loss with a penalty on the gradient of the weights."""
    loss = nn.functional.mse_loss(model(batch[0]), batch[1])
    gradients = torch.autograd.grad(loss, list(model.parameters()), create_graph=True)
    return loss + 0.1 * sum(g.square().sum() for g in gradients)


@pytest.mark.parametrize("loss", [residual, penalised, Problem.loss])
def test_it_returns_the_loss_of_training_and_leaves_gradients_alone(loss):
    problem = Problem()
    problem.loss = loss if loss is not Problem.loss else problem.loss
    step = TrainStep(problem.model, problem.optimizer, problem.loss)
    step(problem.batch(1))
    before = [p.grad.clone() for p in step.parameters]
    for _ in range(2):
        found = step.look(problem.batch(2))
        assert not found.requires_grad
        assert float(found) == float(problem.loss(problem.model, problem.batch(2)).detach())
    assert all(torch.equal(p.grad, b) for p, b in zip(step.parameters, before, strict=True))


def test_finding_out_draws_no_random_numbers_and_moves_no_buffers():
    def after(loss_fn):
        problem = Problem(dropout=0.5, norm=True)
        step = TrainStep(problem.model, problem.optimizer, loss_fn)
        step.look(problem.batch(1))
        return torch.rand(1), problem.model.state_dict()

    def direct(model, batch):
        with torch.enable_grad():
            return residual(model, batch)

    (drawn, state), (drawn_directly, state_directly) = after(residual), after(direct)
    assert drawn == drawn_directly
    assert all(torch.equal(state[name], state_directly[name]) for name in state)


def test_a_loss_that_calls_backward_on_its_way():
    problem = Problem()

    def loss(model, batch):
        x = batch[0].clone().requires_grad_(True)
        model(x).sum().backward()
        return nn.functional.mse_loss(model(batch[0] + 0.1 * x.grad), batch[1])

    step = TrainStep(problem.model, problem.optimizer, loss)
    assert float(step.look(problem.batch(1))) > 0
    assert all(p.grad is None for p in step.parameters)


def test_a_loss_that_raises_whatever_is_on_raises():
    problem = Problem()

    def loss(model, batch):
        raise ZeroDivisionError("of the user's")

    with pytest.raises(ZeroDivisionError):
        TrainStep(problem.model, problem.optimizer, loss).look(problem.batch(1))


def test_probes_and_correct_measure_a_loss_that_differentiates():
    problem = Problem(lr=0.001)
    config = HybridConfig(
        warmup_steps=5, full_steps=5, max_predict_steps=6, correction_interval=3, correct_steps=2,
        confidence_threshold=0.001, horizon_rule="fixed", minimum_cosine=-1.0, guard_tolerance=1e9,
    )  # fmt: skip
    trainer = HybridTrainer(problem.model, problem.optimizer, config, loss_fn=residual)
    trainer.run(problem.batch, 60)
    assert trainer.tally.forward_only_calls > 0
    assert trainer.tally.micro_corrections > 0
    assert {segment.phase for segment in trainer.trace()} > {Phase.PREDICT, Phase.CORRECT}
