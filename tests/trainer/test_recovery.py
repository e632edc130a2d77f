"""What the monitor says is acted on at the end of a block, whoever listens in between."""

import pytest
import torch
from support.problem import Problem

from hybrid_sweep.trainer import HybridConfig, HybridTrainer
from hybrid_sweep.trainer.divergence import DivergenceLevel

ALARMED = HybridConfig(
    warmup_steps=60,
    max_predict_steps=30,
    confidence_threshold=0.01,
    divergence_rule="seed",  # fires on plain noise
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


@pytest.mark.parametrize("step", [71, 75, 80])
def test_a_nan_is_acted_on_at_the_end_of_its_block_whoever_listens(step):
    traces = []
    for listens in (False, True):
        problem = Problem()
        trainer = HybridTrainer(
            problem.model, problem.optimizer, HybridConfig(warmup_steps=100), loss_fn=problem.loss
        )
        for at in range(1, 141):
            x, y = problem.batch(at)
            result = trainer.step((x, y * float("nan")) if at == step else (x, y))
            if listens:
                assert (result.loss != result.loss) == (step <= at <= 80)
                assert result.signal
            assert trainer.tally.rollbacks == (at >= 80)
        traces.append((trainer.trace(), trainer.training_statistics()))
    assert traces[0] == traces[1]
    assert traces[0][1].nonfinite_steps == 81 - step


def test_the_losses_of_a_block_leave_their_device_together(monkeypatch, problem):
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
