"""Corrector: weights, bounds, the online model, and when a micro-correction is due."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hybrid_sweep.trainer.forecast.corrector import MEMORY_SHARE, MODEL_SHARE, Corrector, micro_correction_due
from hybrid_sweep.trainer.forecast.features import FEATURES
from hybrid_sweep.trainer.forecast.residuals import LayerResidual, Residual, ResidualStore

ROWS = torch.randn(300, FEATURES, generator=torch.Generator().manual_seed(0)).tolist()


def residual(
    step: int,
    loss_residual: float = 0.0,
    *,
    layers: dict[str, float] | None = None,
    confidence: float = 0.8,
) -> Residual:
    parts = tuple(LayerResidual(name, value) for name, value in (layers or {}).items())
    return Residual(step, "full", 1, loss_residual, parts, tuple(ROWS[step % len(ROWS)]), confidence)


def corrector(residuals: list[Residual], **options: Any) -> Corrector:
    store = ResidualStore()
    store.extend(residuals)
    return Corrector(store, **options)


def test_equal_residuals_are_remembered_as_they_are() -> None:
    of_equals = corrector([residual(step, 0.05) for step in range(40)])
    assert of_equals.loss_correction(10.0, ROWS[50], 60) == pytest.approx(MEMORY_SHARE * 0.05)


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=12), st.integers(0, 5000))
def test_weights_sum_to_one(confidences: list[float], step: int) -> None:
    items = [residual(i, confidence=confidence) for i, confidence in enumerate(confidences)]
    subject = corrector(items)
    store = ResidualStore()
    store.extend(items)
    similar = store.find_similar(ROWS[20], 12)
    weights = subject.residual_weights(similar, step)
    assert all(weight >= 0 for weight in weights)
    total = sum(weights)
    assert total == pytest.approx(1) or all(item.similarity == -1 for item in similar)


def test_newer_surer_and_more_similar_residuals_weigh_more() -> None:
    store = ResidualStore()
    store.extend([residual(0), residual(300), residual(300, confidence=0.4)])
    similar = store.find_similar(ROWS[0], 3)
    weights = Corrector(store).residual_weights(similar, 300)
    of = {(item.residual.step, item.residual.confidence): w for item, w in zip(similar, weights, strict=True)}
    assert of[0, 0.8] / of[300, 0.8] == pytest.approx(0.95**3)
    assert of[300, 0.4] / of[300, 0.8] == pytest.approx(0.5)
    assert sum(weights) == pytest.approx(1)


def test_residuals_without_confidence_correct_nothing() -> None:
    untrusted = corrector([residual(step, 1.0, layers={"a": 0.1}, confidence=0.0) for step in range(5)])
    assert untrusted.loss_correction(10.0, ROWS[9], 10) == 0
    assert untrusted.group_corrections(ROWS[9], 10, ["a"]) == (0,)


def test_an_empty_store_corrects_nothing() -> None:
    assert corrector([]).loss_correction(1.0, ROWS[0], 10) == 0
    assert corrector([]).group_corrections(ROWS[0], 10, ["a", "b"]) == (0.0, 0.0)


@settings(max_examples=50)
@given(st.lists(st.floats(-1e3, 1e3), max_size=15), st.floats(-1e3, 1e3), st.floats(0, 1))
def test_no_correction_exceeds_the_cap(losses: list[float], predicted: float, cap: float) -> None:
    items = [residual(step, loss, layers={"a": loss}) for step, loss in enumerate(losses)]
    subject = corrector(items, max_correction=cap)
    for item in items:
        subject.learn(item.loss_residual, item.features)
    assert abs(subject.loss_correction(predicted, ROWS[30], 40)) <= cap * abs(predicted) + 1e-9
    assert all(abs(c) <= cap for c in subject.group_corrections(ROWS[30], 40, ["a", "unknown"]))


def test_a_planted_bias_moves_a_prediction_towards_the_truth() -> None:
    subject = corrector([residual(step, 0.1) for step in range(50)])
    for step in range(50):
        subject.learn(0.1, ROWS[step])
    corrected = 1.0 + subject.loss_correction(1.0, ROWS[60], 60)
    assert abs(1.1 - corrected) < 0.05


def test_each_group_gets_the_mean_of_its_own_residuals() -> None:
    half = [residual(step, layers={"a": 0.1, "b": -0.05}) for step in range(10)]
    subject = corrector([*half, *(residual(step, layers={"a": 0.1}) for step in range(10, 20))], k=20)
    assert subject.group_corrections(ROWS[25], 30, ["b", "a", "c"]) == pytest.approx((-0.05, 0.1, 0.0))


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_the_online_model_learns_a_stationary_linear_bias(scale: float) -> None:
    def bias(row: list[float]) -> float:
        return scale * (0.5 + 0.3 * row[0] - 0.2 * row[3])

    subject = corrector([residual(step) for step in range(100)])
    before = sum(abs(bias(row)) for row in ROWS[200:])
    for row in ROWS[:200]:
        subject.learn(bias(row), row)
    after = sum(abs(bias(row) - subject.modelled(row)) for row in ROWS[200:])
    assert after <= 0.5 * before


@settings(max_examples=30)
@given(st.lists(st.tuples(st.floats(-1e3, 1e3), st.integers(0, 299)), max_size=60))
def test_the_online_model_stays_finite_and_bounded(lessons: list[tuple[float, int]]) -> None:
    subject = corrector([residual(step) for step in range(100)], learning_rate=1.0)
    for loss_residual, row in lessons:
        subject.learn(loss_residual, [100 * value for value in ROWS[row]])
    assert abs(subject.modelled(ROWS[0])) < 1e6


def test_residuals_that_are_not_finite_teach_nothing() -> None:
    subject = corrector([residual(step) for step in range(5)])
    subject.learn(math.nan, ROWS[0])
    subject.learn(math.inf, ROWS[0])
    assert subject.modelled(ROWS[0]) == 0


def test_the_model_has_three_tenths_of_the_say() -> None:
    subject = corrector([residual(step) for step in range(20)])
    for _ in range(50):
        subject.learn(1.0, ROWS[3])
    correction = subject.loss_correction(100.0, ROWS[3], 20)
    assert correction == pytest.approx(MODEL_SHARE * subject.modelled(ROWS[3]))


def test_state_round_trip() -> None:
    first, second = (corrector([residual(step, 0.1) for step in range(20)]) for _ in range(2))
    for step in range(20):
        first.learn(0.3, ROWS[step])
    state = first.state_dict()
    second.load_state_dict(state)
    first.learn(0.7, ROWS[30])
    assert second.state_dict() == state
    second.learn(0.7, ROWS[30])
    assert second.loss_correction(5.0, ROWS[40], 50) == first.loss_correction(5.0, ROWS[40], 50)


@pytest.mark.parametrize(
    ("length", "interval", "due"),
    [(60, 15, [15, 30, 45, 60]), (60, 0, []), (60, 61, []), (60, 60, [60]), (0, 15, [])],
)
def test_micro_corrections_fall_on_every_interval(length: int, interval: int, due: list[int]) -> None:
    assert [k for k in range(length + 1) if micro_correction_due(k, interval)] == due
