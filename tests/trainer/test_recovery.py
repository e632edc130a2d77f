"""What the monitor says is acted on at the end of a block, no matter what listens in between."""

import pytest
import torch
from support.problem import Problem
from support.states import travelled

from hybrid_sweep.trainer import HybridConfig, HybridTrainer, TrainingDiverged, stepper
from hybrid_sweep.trainer.divergence.monitor import DivergenceLevel
from hybrid_sweep.trainer.phases import Phase

ALARMED = HybridConfig(
    warmup_steps=60,
    max_predict_steps=30,
    confidence_threshold=0.01,
    divergence_rule="original",  # fires on plain noise
    max_rollbacks=99,
)


def trained(listen, log=None):
    """Train step by step, and return the problem, its trainer, and the steps with a warning or worse."""
    problem = Problem()
    trainer = HybridTrainer(
        problem.model, problem.optimizer, ALARMED, loss_fn=problem.loss, divergence_log=log
    )
    trainer.controller.total_steps = 400
    results = []
    for step in range(1, 401):
        results.append(trainer.step(problem.batch(step)))
        if listen(step):
            assert results[-1].signal or results[-1].loss_is_predicted
    return problem, trainer


@pytest.mark.parametrize(
    "listen", [lambda step: True, lambda step: step % 7 == 0], ids=["always", "at times"]
)
def test_listening_changes_nothing(listen):
    (deaf, alone), (heard, listened) = trained(lambda step: False), trained(listen)
    assert alone.trace() == listened.trace()
    assert all(
        torch.equal(a, b) for a, b in zip(deaf.model.parameters(), heard.model.parameters(), strict=True)
    )
    assert alone.training_statistics() == listened.training_statistics()
    assert alone.tally.warning_steps > 0


def test_a_log_changes_nothing_and_has_a_row_a_step(tmp_path):
    (deaf, alone), (heard, logged) = (
        trained(lambda step: False),
        trained(lambda step: False, tmp_path / "log"),
    )
    assert alone.trace() == logged.trace()
    assert all(
        torch.equal(a, b) for a, b in zip(deaf.model.parameters(), heard.model.parameters(), strict=True)
    )
    rows = (tmp_path / "log").read_text().splitlines()[1:]
    assert [int(row.split(",")[0]) for row in rows] == list(range(1, 401))
    warnings = sum(int(row.rsplit(",", 1)[1]) >= DivergenceLevel.WARNING for row in rows)
    assert warnings == alone.training_statistics().warning_rate * 400 == logged.tally.warning_steps


def test_a_signal_is_forgotten_after_a_while():
    problem = Problem()
    trainer = HybridTrainer(
        problem.model, problem.optimizer, HybridConfig(warmup_steps=200), loss_fn=problem.loss
    )
    results = [trainer.step(problem.batch(step)) for step in range(1, 61)]
    assert results[0].signal is not None  # the first norm was measured with it
    assert results[1].signal is None
    assert results[-1].signal.level is DivergenceLevel.NORMAL


@pytest.mark.parametrize("rule", ["calibrated", "original"])
@pytest.mark.parametrize("at_hand", [True, False])
def test_losses_whose_squares_no_number_holds_are_a_divergence(monkeypatch, rule, at_hand):
    monkeypatch.setattr(stepper, "is_at_hand", lambda loss: at_hand)
    problem, steps = Problem(), []
    model = problem.model.double()

    def loss(model, batch):
        steps.append(None)
        return problem.loss(model, batch) * 1e3 ** len(steps)  # beyond 1e154 from step 52 on

    config = HybridConfig(warmup_steps=90, divergence_rule=rule)
    trainer = HybridTrainer(model, torch.optim.SGD(model.parameters(), lr=0.0), config, loss_fn=loss)
    with pytest.raises(TrainingDiverged, match="loss is inf"):
        trainer.run(lambda step: [part.double() for part in problem.batch(step)], 200)


@pytest.fixture
def far(monkeypatch):
    """Have losses stay where they are, as on a GPU."""
    monkeypatch.setattr(stepper, "is_at_hand", lambda loss: False)


def poisoned(problem, at, steps, meanwhile=lambda trainer, step: None):
    """Train with a NaN in the batch of step `at`; return the trainer, and its rollbacks by each step."""
    trainer = HybridTrainer(
        problem.model, problem.optimizer, HybridConfig(warmup_steps=100), loss_fn=problem.loss
    )
    rollbacks = {}
    for step in range(1, steps + 1):
        x, y = problem.batch(step)
        trainer.step((x, y * float("nan")) if step == at else (x, y))
        meanwhile(trainer, step)
        rollbacks[step] = trainer.tally.rollbacks
    return trainer, rollbacks


@pytest.mark.parametrize("at", [71, 75, 80])
def test_a_nan_is_acted_on_at_once(problem, at):
    trainer, rollbacks = poisoned(problem, at, 140)
    assert all(count == (step >= at) for step, count in rollbacks.items())
    assert trainer.training_statistics().nonfinite_steps == 1


@pytest.mark.parametrize("at", [71, 75, 80])
def test_a_nan_on_a_gpu_is_acted_on_at_the_end_of_its_block(far, at):
    def listen(trainer, step):
        assert (trainer.state().loss != trainer.state().loss) == (at <= step <= 80)

    (deaf, rollbacks), (listening, _) = poisoned(Problem(), at, 140), poisoned(Problem(), at, 140, listen)
    assert all(count == (step >= 80) for step, count in rollbacks.items())
    assert deaf.trace() == listening.trace()
    assert deaf.training_statistics() == listening.training_statistics()
    assert deaf.training_statistics().nonfinite_steps == 81 - at


@pytest.mark.parametrize(
    "look",
    [
        lambda trainer: trainer.force_phase(Phase.PREDICT, 5),
        lambda trainer: trainer.force_phase(Phase.FULL, 30),
        lambda trainer: trainer.take_checkpoint(),
    ],
)
def test_no_one_builds_on_broken_weights(far, problem, look):
    _, rollbacks = poisoned(problem, 83, 140, lambda trainer, step: step == 84 and look(trainer))
    assert rollbacks[83] == 0
    assert rollbacks[84] == rollbacks[140] == 1
    assert all(torch.isfinite(p).all() for p in problem.model.parameters())


def test_a_saved_run_remembers_that_its_weights_are_broken(far):
    def train(cut):
        problem = Problem()
        trainer = HybridTrainer(
            problem.model, problem.optimizer, HybridConfig(warmup_steps=100), loss_fn=problem.loss
        )
        for step in range(1, 85):
            x, y = problem.batch(step)
            result = trainer.step((x, y * float("nan")) if step == 83 else (x, y))
        assert result.signal.name == "non_finite"  # heard, and not acted on before the end of the block
        if cut:
            state, problem = travelled(trainer.state_dict()), Problem()
            trainer = HybridTrainer(
                problem.model, problem.optimizer, HybridConfig(warmup_steps=100), loss_fn=problem.loss
            )
            trainer.load_state_dict(state)
        trainer.take_checkpoint()
        assert all(torch.isfinite(p).all() for p in problem.model.parameters())
        return trainer.tally.rollbacks

    assert train(cut=False) == train(cut=True) == 1


@pytest.mark.parametrize("steps", [85, 280])
def test_a_cycle_ends_with_sane_weights(far, problem, steps):
    config = HybridConfig(warmup_steps=100, tail="average", confidence_threshold=0.999)
    trainer = HybridTrainer(problem.model, problem.optimizer, config, loss_fn=problem.loss)

    def load(step):
        x, y = problem.batch(step)
        return (x, y * float("nan")) if step == steps - 2 else (x, y)

    while trainer.run_cycle(load, steps):
        assert all(torch.isfinite(p).all() for p in problem.model.parameters())
    assert all(torch.isfinite(p).all() for p in problem.model.parameters())
    assert trainer.tally.rollbacks == 1


def test_a_loss_whose_memory_is_used_again_is_read_right(far):
    averages = []
    for buffer in (None, torch.zeros(())):
        problem = Problem()

        def loss(model, batch, buffer=buffer, problem=problem):
            return Reused.apply(problem.loss(model, batch), buffer)

        trainer = HybridTrainer(problem.model, problem.optimizer, HybridConfig(warmup_steps=30), loss_fn=loss)
        averages.append(trainer.run(problem.batch, 60).average_loss)
    assert averages[0] == averages[1]


class Reused(torch.autograd.Function):
    """Writes each loss where it wrote the one before."""

    @staticmethod
    def forward(ctx, loss, buffer):
        return loss.clone() if buffer is None else buffer.detach().copy_(loss)

    @staticmethod
    def backward(ctx, gradient):
        return gradient, None


def test_the_losses_of_a_block_leave_a_gpu_together(far, monkeypatch, problem):
    trainer = HybridTrainer(
        problem.model, problem.optimizer, HybridConfig(warmup_steps=100), loss_fn=problem.loss
    )
    trainer.step(problem.batch(1))
    batches, reads = [problem.batch(step) for step in range(2, 32)], []
    for name in ("item", "tolist", "__float__", "__int__", "__bool__"):
        read = getattr(torch.Tensor, name)
        monkeypatch.setattr(
            torch.Tensor, name, lambda tensor, read=read: reads.append(trainer.tally.steps) or read(tensor)
        )
    for batch in batches:
        trainer.step(batch)
    assert set(reads) == {10, 20, 30}


@pytest.mark.parametrize(
    "config", [HybridConfig(confidence_threshold=0.999), HybridConfig(warmup_steps=1000)]
)
def test_a_nan_late_in_a_run_without_jumps_costs_a_hundred_steps(problem, config):
    trainer = HybridTrainer(problem.model, problem.optimizer, config, loss_fn=problem.loss)
    weights = {}

    def load(step):
        weights[step] = torch.cat([p.detach().flatten() for p in problem.model.parameters()])
        x, y = problem.batch(step)
        return (x, y * float("nan")) if step == 333 else (x, y)

    trainer.run(load, 340)
    assert trainer.tally.rollbacks == 1
    back = [step for step, before in weights.items() if step <= 333 and torch.equal(before, weights[334])]
    assert back
    assert back[-1] >= 233


@pytest.mark.parametrize("interval", [30, 100])
def test_checkpoints_are_as_far_apart_as_told_and_counted_as_work(problem, interval):
    config = HybridConfig(confidence_threshold=0.999, checkpoint_interval=interval)
    trainer = HybridTrainer(problem.model, problem.optimizer, config, loss_fn=problem.loss)
    trainer.run(problem.batch, 600)
    assert trainer.meter.calls["checkpoint"] == 600 // interval


@pytest.mark.parametrize(("rise", "taken_at"), [(0.0, 160), (3.0, 150)])
def test_no_checkpoint_is_taken_while_a_fault_is_suspected(problem, rise, taken_at):
    """There is no way back from a checkpoint of broken weights."""
    config = HybridConfig(confidence_threshold=0.999, checkpoint_interval=10)
    trainer = HybridTrainer(problem.model, problem.optimizer, config, loss_fn=problem.loss)
    for step in range(1, 161):
        x, y = problem.batch(step)
        trainer.step((x, y + rise * (step > 152)))
    assert trainer.recovery._checkpoint_at == taken_at


def test_no_large_loss_takes_real_steps_back_where_no_jump_can_be_to_blame(problem):
    """A shut gate is plain training, spikes and all."""
    config = HybridConfig(confidence_threshold=0.999, max_rollbacks=0)
    trainer = HybridTrainer(problem.model, problem.optimizer, config, loss_fn=problem.loss)
    for step in range(1, 141):
        x, y = problem.batch(step)
        trainer.step((x, y * (1e4 if step == 120 else 1)))
    assert trainer.tally.warning_steps > 0
    assert trainer.tally.rollbacks == 0
