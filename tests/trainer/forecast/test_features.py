"""StepHistory, its features, and their standardisation."""

import math
import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hybrid_sweep.trainer.forecast.features import (
    FEATURE_NAMES,
    FEATURES,
    LOG_LIMIT,
    Standardizer,
    StepHistory,
)

LOSSES = st.lists(st.floats(0.01, 1e3), min_size=1, max_size=40)


def filled(losses: list[float], *, scale: float = 1.0, start: int = 1, capacity: int = 512) -> StepHistory:
    history = StepHistory(capacity)
    for step, loss in enumerate(losses, start):
        history.append(step, scale * loss, 1.0 + 0.1 * (step % 3), 0.01)
    return history


@given(LOSSES)
def test_the_scale_of_the_loss_does_not_change_the_features(losses: list[float]) -> None:
    small, large = filled(losses).rows(99), filled(losses, scale=10).rows(99)
    torch.testing.assert_close(torch.tensor(small), torch.tensor(large), rtol=1e-4, atol=1e-4)


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=30))
def test_features_are_finite_whatever_the_sign_of_the_loss(losses: list[float]) -> None:
    features = torch.tensor(filled(losses).rows(99))
    assert features.shape == (len(losses), FEATURES)
    assert features.isfinite().all()
    assert (features[:, :7].abs() <= LOG_LIMIT).all()


def test_asking_in_between_changes_nothing() -> None:
    losses = [2.0, 1.5, 1.7, 1.2, 1.1]
    often = StepHistory()
    for step, loss in enumerate(losses, 1):
        often.append(step, loss, 1.0 + 0.1 * (step % 3), 0.01)
        often.rows(1)
    assert often.rows(5) == filled(losses).rows(5)


def test_averages_start_as_plain_means() -> None:
    tracker = filled([4.0, 2.0]).tracker
    assert tracker.fast == tracker.slow == pytest.approx(3.0)


def test_a_gap_is_seen_and_lets_the_fast_average_catch_up() -> None:
    history = filled([2.0] * 50)
    for step in range(101, 106):
        history.append(step, 1.0, 1.0, 0.01)
    named = dict(zip(FEATURE_NAMES, history.rows(1)[0], strict=True))
    assert named["log_gap"] == pytest.approx(math.log1p(50))
    assert named["log_steps_since_gap"] == pytest.approx(math.log1p(5))
    assert history.tracker.fast == pytest.approx((2.0 + 5 * 1.0) / 6)


def test_steps_that_are_not_finite_are_left_out() -> None:
    history = filled([1.0, 1.0])
    history.append(3, math.nan, 1.0, 0.01)
    history.append(4, 1.0, math.inf, 0.01)
    assert len(history) == 2
    assert len(history.rows(9)) == 2


def test_steps_beyond_the_capacity_leave_their_mark_on_the_averages() -> None:
    asked, unasked = StepHistory(10), filled([2.0] * 30 + [1.0] * 15, capacity=10)
    for step in range(1, 46):
        asked.append(step, 2.0 if step <= 30 else 1.0, 1.0 + 0.1 * (step % 3), 0.01)
        asked.rows(1)
    assert asked.tracker == unasked.tracker
    assert asked.rows(99) == unasked.rows(99)


def test_the_oldest_steps_make_room() -> None:
    history = filled([1.0] * 30, capacity=8)
    assert [real.step for real in history.newest(99)] == list(range(23, 31))
    assert len(history.rows(99)) == 8
    assert StepHistory().rows(5) == []


@given(LOSSES, st.floats(0.01, 10))
def test_history_state_round_trip(losses: list[float], next_loss: float) -> None:
    history, restored = filled(losses), StepHistory()
    restored.load_state_dict(history.state_dict())
    for each in (history, restored):
        each.append(len(losses) + 1, next_loss, 1.0, 0.01)
    assert restored.rows(99) == history.rows(99)
    assert restored.newest(99) == history.newest(99)


def test_standardised_rows_have_mean_zero_and_deviation_one() -> None:
    noise = np.random.default_rng(0).standard_normal((300, 3))
    rows = (noise * [1.0, 50.0, 0.0] + [0.0, 1000.0, 7.0]).astype(np.float32)
    standardizer = Standardizer(3, limit=50)
    for part in np.split(rows, [1, 100]):
        standardizer.update(part)
    result = standardizer(rows)
    np.testing.assert_allclose(result.mean(axis=0), [0, 0, 0], atol=1e-3)
    np.testing.assert_allclose(result.std(axis=0), [1, 1, 0], atol=1e-3)
    restored = Standardizer(3, limit=50)
    restored.load_state_dict(standardizer.state_dict())
    np.testing.assert_array_equal(restored(rows), result)


def test_a_cheap_append_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    filled([random.Random(0).random() for _ in range(30)]).rows(30)
    assert torch.equal(torch.get_rng_state(), before)
