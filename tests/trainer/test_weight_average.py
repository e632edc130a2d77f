"""The weights of the end of a run, averaged."""

import pytest
import torch
from support.problem import Problem

from hybrid_sweep.trainer import HybridConfig, HybridTrainer
from hybrid_sweep.trainer.phases import tail_begin
from hybrid_sweep.trainer.weight_average import WeightAverage

AVERAGE = HybridConfig(
    warmup_steps=40,
    max_predict_steps=30,
    confidence_threshold=0.01,
    horizon_rule="fixed",
    stop_fraction=0.2,
    tail="average",
)


def trained(config, steps=400, problem=None):
    """Train, and return the problem, its trainer, and the weights after each step."""
    problem = problem or Problem(norm=True)
    trainer = HybridTrainer(problem.model, problem.optimizer, config, loss_fn=problem.loss)
    seen = {}
    original = trainer.planner.observe

    def observe():
        original()
        seen[trainer.tally.steps] = [p.detach().clone() for p in problem.model.parameters()]

    trainer.planner.observe = observe
    trainer.run(problem.batch, steps)
    return problem, trainer, seen


def test_the_model_ends_with_the_mean_of_every_tenth_step_of_the_tail():
    problem, _, seen = trained(AVERAGE)
    kept = [weights for step, weights in seen.items() if step > 320][::10]
    assert len(kept) == 8
    for i, p in enumerate(problem.model.parameters()):
        torch.testing.assert_close(p.detach(), torch.stack([weights[i] for weights in kept]).mean(0))


def test_it_changes_nothing_before_the_end_and_leaves_batch_norms_buffers_alone():
    averaged, _, with_it = trained(AVERAGE)
    stopped, _, without = trained(AVERAGE.replace(tail="stop"))
    assert with_it.keys() == without.keys()
    for step in with_it:
        assert all(torch.equal(a, b) for a, b in zip(with_it[step], without[step], strict=True))
    for a, b in zip(averaged.model.buffers(), stopped.model.buffers(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(averaged.model[0].weight, stopped.model[0].weight)


def test_it_goes_on_from_a_saved_run_within_the_tail():
    whole, _, _ = trained(AVERAGE.replace(max_predict_steps=10))
    first, second = Problem(norm=True), Problem(norm=True)
    config = AVERAGE.replace(max_predict_steps=10)
    before = HybridTrainer(first.model, first.optimizer, config, loss_fn=first.loss)
    before.controller.total_steps = 400
    for step in range(1, 346):
        before.step(first.batch(step))
    after = HybridTrainer(second.model, second.optimizer, config, loss_fn=second.loss)
    after.load_state_dict(before.state_dict())
    after.run(second.batch, 400)
    for a, b in zip(whole.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_without_a_tail_there_is_nothing_to_average():
    averaged, _, _ = trained(AVERAGE.replace(stop_fraction=0.0))
    stopped, _, _ = trained(AVERAGE.replace(stop_fraction=0.0, tail="stop"))
    for p, q in zip(averaged.model.parameters(), stopped.model.parameters(), strict=True):
        assert torch.equal(p, q)
    weights = [torch.ones(3)]
    WeightAverage(weights).finish()
    assert torch.equal(weights[0], torch.ones(3))


@pytest.mark.parametrize(("fraction", "begin"), [(0.0, 400), (0.05, 380), (0.5, 200)])
def test_where_the_tail_begins(fraction, begin):
    assert tail_begin(400, fraction) == begin
