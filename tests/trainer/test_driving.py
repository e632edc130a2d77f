"""Driving a trainer: where one call ends and the next goes on, and schedules that the caller steps."""

import pytest
import torch
from support.problem import Problem

from hybrid_sweep.errors import UserError
from hybrid_sweep.trainer import HybridConfig, HybridTrainer, Phase

SHORT = HybridConfig(
    warmup_steps=20,
    full_steps=10,
    max_predict_steps=8,
    horizon_rule="fixed",
    confidence_threshold=0.001,
    minimum_cosine=-1,
)


# The end of a run belongs to its call


def cycles(trainer):
    return [segment.phase for segment in trainer.trace()].count("predict")


def test_steps_after_a_run_predict_again_and_another_run_goes_on_to_its_own_end():
    problem = Problem()
    trainer = HybridTrainer(problem.model, problem.optimizer, SHORT, loss_fn=problem.loss)
    trainer.run(problem.batch, 60)
    before = cycles(trainer)
    assert trainer.tally.steps == 60
    assert trainer.controller.total_steps is None
    for step in range(61, 121):
        trainer.step(problem.batch(step))
    between = cycles(trainer)
    assert between > before
    trainer.run(problem.batch, 240)
    assert trainer.tally.steps == 240
    assert cycles(trainer) > between
    tail = int(240 * (1 - SHORT.stop_fraction))
    assert all(step in problem.loaded for step in range(tail + 1, 241))


@pytest.mark.parametrize("predictor", ["ema", "ema_nesterov", "outer_momentum", "rre"])
def test_training_goes_on_from_the_average_of_a_tail_without_taking_it_for_a_velocity(predictor):
    problem = Problem(lr=0.1)
    config = SHORT.replace(tail="average", stop_fraction=0.2, predictor=predictor, correct_steps=0)
    trainer = HybridTrainer(problem.model, problem.optimizer, config, loss_fn=problem.loss)
    trainer.run(problem.batch, 60)
    with torch.no_grad():
        assert not trainer.planner.predictor.ready
        assert not trainer.planner.predictor.displacement(0, 10).any()
    before = cycles(trainer)
    trainer.run(problem.batch, 160)
    assert cycles(trainer) > before


def test_a_run_that_is_broken_off_leaves_no_end_behind():
    problem = Problem()
    trainer = HybridTrainer(problem.model, problem.optimizer, SHORT, loss_fn=problem.loss)

    def batches(step):
        if step == 30:
            raise KeyboardInterrupt
        return problem.batch(step)

    with pytest.raises(KeyboardInterrupt):
        trainer.run(batches, 40)
    assert trainer.controller.total_steps is None


def test_a_run_of_fewer_steps_than_are_done_is_refused_and_one_of_as_many_has_nothing_to_do():
    problem = Problem()
    trainer = HybridTrainer(problem.model, problem.optimizer, SHORT, loss_fn=problem.loss)
    trainer.run(problem.batch, 60)
    assert trainer.run(problem.batch, 60).steps == 60
    with pytest.raises(
        UserError, match=r"total_steps=50 is not allowed after 60 steps: .* total_steps=60 \+ k"
    ):
        trainer.run(problem.batch, 50)


# A schedule that the caller steps


def test_a_jump_sees_a_rate_that_the_caller_has_changed():
    moved = []
    for rate in (0.05, 0.025):
        problem = Problem()
        config = SHORT.replace(gates="off", correction_interval=0, correct_steps=0)
        trainer = HybridTrainer(problem.model, problem.optimizer, config, loss_fn=problem.loss)
        while trainer.controller.phase is not Phase.FULL or trainer.controller.remaining:
            trainer.step(problem.batch(trainer.tally.steps + 1))
        problem.optimizer.param_groups[0]["lr"] = rate
        before = [p.detach().clone() for p in problem.model.parameters()]
        assert trainer.step(None).phase is Phase.PREDICT
        moved.append([p.detach() - b for p, b in zip(problem.model.parameters(), before, strict=True)])
    for whole, half in zip(*moved, strict=True):
        torch.testing.assert_close(half, whole / 2, rtol=1e-4, atol=1e-6)


def test_a_schedule_stepped_once_a_call_keeps_count_and_jumps_as_one_that_the_trainer_has():
    """Of steps in one block both have the same rate; the caller's jumps by the rate where the jump begins."""
    rates, weights = [], []
    for own in (True, False):
        problem = Problem()
        schedule = torch.optim.lr_scheduler.StepLR(problem.optimizer, 50, 0.5)
        trainer = HybridTrainer(
            problem.model,
            problem.optimizer,
            SHORT.replace(correction_interval=1),
            loss_fn=problem.loss,
            lr_scheduler=None if own else schedule,
        )
        seen = []
        for step in range(1, 121):
            trainer.step(problem.batch(step))
            if own:
                schedule.step()
            seen.append(problem.optimizer.param_groups[0]["lr"])
        rates.append(seen)
        weights.append([p.detach().clone() for p in problem.model.parameters()])
    assert rates[0] == rates[1]
    for one, other in zip(*weights, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_a_rollback_leaves_the_callers_schedule_where_it_is():
    problem = Problem()
    schedule = torch.optim.lr_scheduler.ExponentialLR(problem.optimizer, 0.99)
    trainer = HybridTrainer(problem.model, problem.optimizer, SHORT, loss_fn=problem.loss)
    for step in range(1, 61):
        trainer.step(problem.batch(step))
        schedule.step()
        if step == 55:
            trainer.rollback_to_checkpoint()
    assert problem.optimizer.param_groups[0]["lr"] == pytest.approx(0.05 * 0.99**60)
