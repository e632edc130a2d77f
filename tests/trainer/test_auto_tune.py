"""auto_tune_confidence: it ends, and leaves no trace."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.problem import Problem
from support.states import difference

from hybrid_sweep.errors import UserError
from hybrid_sweep.trainer import HybridConfig, HybridTrainer
from hybrid_sweep.trainer.auto_tune import loss_quality, lowest_passing

CONFIG = HybridConfig(warmup_steps=40, max_predict_steps=30, correction_interval=7, confidence_threshold=0.5)


def trained(problem: Problem, steps: int = 150, **options: object) -> HybridTrainer:
    trainer = HybridTrainer(problem.model, problem.optimizer, CONFIG, loss_fn=problem.loss, **options)
    trainer.run(problem.batch, steps)
    return trainer


@given(st.lists(st.floats(), min_size=17, max_size=17), st.floats(0, 2))
def test_it_ends_for_every_quality_and_returns_one_that_passed(values: list[float], target: float) -> None:
    asked: list[float] = []

    def quality(threshold: float) -> float:
        asked.append(threshold)
        return values[len(asked) - 1]

    found = lowest_passing(quality, target)
    assert len(asked) == len(set(asked)) <= 17
    assert all(0 < threshold <= 0.85 for threshold in asked)
    assert found is None or values[asked.index(found)] >= target


def test_always_passing_ends_at_the_bottom_and_always_failing_finds_none() -> None:
    assert lowest_passing(lambda _: 1.0, 0.98) == 0.05
    assert lowest_passing(lambda _: 0.0, 0.98) is None
    assert lowest_passing(lambda _: math.nan, 0.98) is None


def test_it_stops_at_the_first_miss() -> None:
    assert lowest_passing(lambda threshold: float(threshold >= 0.6), 0.98) == 0.6


@pytest.mark.parametrize("made", [{}, {"dropout": 0.4, "norm": True, "momentum": 0.9}])
def test_everything_is_as_it_was(made: dict[str, float]) -> None:
    problem = Problem(**made)
    trainer = trained(problem)
    before, total = trainer.state_dict(), trainer.controller.total_steps
    asked = []

    def evaluate(model: torch.nn.Module) -> float:
        with torch.no_grad():
            asked.append(float(problem.loss(model, problem.batch(10_000))))
        return asked[-1]

    found = trainer.auto_tune_confidence(problem.batch, evaluate, target_quality=0.1)
    assert found == 0.05
    assert len(set(asked)) > 1, "some threshold jumped"
    assert difference(trainer.state_dict(), before) is None
    assert trainer.controller.total_steps == total
    assert trainer.controller.config is trainer.config is CONFIG


def test_training_goes_on_as_if_it_had_not_been_tried() -> None:
    tuned, untouched = Problem(), Problem()
    trainer = trained(tuned)
    trainer.auto_tune_confidence(tuned.batch, lambda _: 1.0)
    trainer.run(tuned.batch, 300)
    other = trained(untouched)
    other.run(untouched.batch, 300)
    assert all(map(torch.equal, tuned.model.parameters(), untouched.model.parameters()))


def test_an_impossible_target_finds_none() -> None:
    problem = Problem()
    assert trained(problem).auto_tune_confidence(problem.batch, lambda _: 1.0, target_quality=2.0) is None


def test_nothing_of_it_is_logged(tmp_path) -> None:
    problem = Problem()
    trainer = trained(problem, divergence_log=tmp_path / "log.csv")
    rows = (tmp_path / "log.csv").read_text()
    trainer.auto_tune_confidence(problem.batch, lambda _: 1.0)
    assert (tmp_path / "log.csv").read_text() == rows
    trainer.run(problem.batch, 200)
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 201


def test_an_error_in_between_leaves_everything_as_it_was() -> None:
    problem = Problem()
    trainer = trained(problem)
    before = trainer.state_dict()

    def broken(_: torch.nn.Module) -> float:
        raise RuntimeError("no validation data")

    with pytest.raises(RuntimeError, match="no validation data"):
        trainer.auto_tune_confidence(problem.batch, broken)
    assert difference(trainer.state_dict(), before) is None


def test_it_waits_for_the_end_of_warmup() -> None:
    problem = Problem()
    with pytest.raises(UserError, match="after its Warmup"):
        trained(problem, steps=20).auto_tune_confidence(problem.batch, lambda _: 1.0)


def test_quality_is_a_ratio_of_positive_losses() -> None:
    assert loss_quality(1.0, 2.0) == 0.5
    assert loss_quality(1.0, math.inf) == loss_quality(1.0, math.nan) == 0
    with pytest.raises(UserError, match="positive"):
        loss_quality(-1.0, 1.0)
