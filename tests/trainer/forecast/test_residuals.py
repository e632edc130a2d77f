"""ResidualStore: first in, first out, and the search for similar situations."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.states import travelled

from hybrid_sweep.trainer.forecast.features import FEATURES
from hybrid_sweep.trainer.forecast.residuals import LayerResidual, Residual, ResidualStore
from hybrid_sweep.trainer.snapshot import plain


def residual(step: int, features: list[float] | None = None, loss_residual: float = 0.0) -> Residual:
    layers = (LayerResidual("a", 0.1), LayerResidual("b", -0.2))
    row = tuple(features or [float(step % 7 + i) for i in range(FEATURES)])
    return Residual(step, "full", 1, loss_residual, layers, row, 0.8)


def raw_features(count: int, seed: int = 0) -> torch.Tensor:
    """Features of very different scales around a large constant, as raw ones are."""
    scales = torch.logspace(-2, 2, FEATURES)
    noise = torch.randn(count, FEATURES, generator=torch.Generator().manual_seed(seed))
    return 10 * scales + scales * noise


def test_the_oldest_residuals_make_room() -> None:
    store = ResidualStore(capacity=5)
    store.extend(residual(step) for step in range(3))
    store.extend(residual(step) for step in range(3, 9))
    assert [item.step for item in store.residuals] == [4, 5, 6, 7, 8]
    assert len(store) == 5


@settings(max_examples=30)
@given(st.lists(st.integers(0, 12), max_size=8), st.integers(1, 10))
def test_any_way_of_filling_keeps_the_newest(batches: list[int], capacity: int) -> None:
    store, step = ResidualStore(capacity), 0
    for batch in batches:
        store.extend(residual(step + i, [float(step + i)] * FEATURES) for i in range(batch))
        step += batch
    assert [item.step for item in store.residuals] == list(range(max(step - capacity, 0), step))
    found = store.find_similar([float(step)] * FEATURES, k=capacity)
    assert sorted(item.residual.step for item in found) == [item.step for item in store.residuals]
    assert all(-1 <= item.similarity <= 1 for item in found)


def test_a_planted_twin_is_found_among_a_thousand() -> None:
    rows = raw_features(1000)
    store = ResidualStore()
    store.extend(residual(step, row.tolist()) for step, row in enumerate(rows))
    ranks = []
    for planted in range(0, 1000, 25):
        twin = rows[planted] + 0.05 * torch.logspace(-2, 2, FEATURES)
        found = [item.residual.step for item in store.find_similar(twin.tolist(), k=10)]
        ranks.append(1 + found.index(planted) if planted in found else 1000)
    assert sum(ranks) / len(ranks) < 2


def test_the_most_similar_come_first() -> None:
    store = ResidualStore()
    store.extend(residual(step, row.tolist()) for step, row in enumerate(raw_features(50)))
    found = [item.similarity for item in store.find_similar(raw_features(1, seed=9)[0].tolist(), k=7)]
    assert len(found) == 7
    assert found == sorted(found, reverse=True)


def test_an_empty_store_finds_nothing() -> None:
    assert ResidualStore().find_similar([0.0] * FEATURES) == []
    store = ResidualStore()
    store.extend([])
    assert len(store) == 0


def test_a_state_is_data_and_round_trips() -> None:
    store, restored = ResidualStore(capacity=20), ResidualStore(capacity=20)
    store.extend(residual(step, row.tolist()) for step, row in enumerate(raw_features(30)))
    restored.load_state_dict(travelled(plain(store.state_dict())))
    assert restored.residuals == store.residuals
    query = raw_features(1, seed=3)[0].tolist()
    assert restored.find_similar(query) == store.find_similar(query)
    extra = [residual(99, raw_features(1, seed=4)[0].tolist())]
    store.extend(extra)
    restored.extend(extra)
    assert restored.find_similar(query) == store.find_similar(query)


def test_a_residual_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        residual(1).step = 2


def test_a_kept_answer_is_dropped_when_a_better_one_arrives() -> None:
    store = ResidualStore()
    store.extend(residual(step, row.tolist()) for step, row in enumerate(raw_features(20)))
    query = raw_features(1, seed=5)[0].tolist()
    assert store.find_similar(query, k=1) == store.find_similar(query, k=1)
    assert len(store.find_similar(query, k=2)) == 2
    store.extend([residual(77, query)])
    assert store.find_similar(query, k=1)[0].residual.step == 77
