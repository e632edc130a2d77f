"""What the predictor got wrong, and in which situation: the memory that corrections are drawn from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from hybrid_sweep.trainer.forecast.features import FEATURES, Array, Standardizer, as_array


class LayerResidual(NamedTuple):
    """What one layer group did, other than predicted.

    Attributes:
        name: of the layer group.
        magnitude: realised gate − used gate; positive where the group moved further than the jump had it.
    """

    name: str
    magnitude: float


class Residual(NamedTuple):
    """One prediction whose truth was measured.

    Attributes:
        step: logical step of the measurement.
        phase: name of the phase that measured it.
        horizon: logical steps that the prediction reached ahead.
        loss_residual: actual − predicted loss.
        layers: one entry for each layer group, or none where no displacement was measured.
        features: of the situation in which the prediction was made (`FEATURE_NAMES`).
        confidence: at the prediction, in [0, 1].
    """

    step: int
    phase: str
    horizon: int
    loss_residual: float
    layers: tuple[LayerResidual, ...]
    features: tuple[float, ...]
    confidence: float

    @classmethod
    def from_saved(cls, saved: Sequence[Any]) -> Residual:
        """Return the residual that was saved as nested tuples."""
        step, phase, horizon, loss_residual, layers, features, confidence = saved
        rebuilt = tuple(LayerResidual(*layer) for layer in layers)
        return cls(step, phase, horizon, loss_residual, rebuilt, tuple(features), confidence)


class Similar(NamedTuple):
    """A stored residual and how much its situation resembles the one asked about: a cosine in [−1, 1]."""

    residual: Residual
    similarity: float


class ResidualStore:
    """The newest residuals, first in, first out, searched by the similarity of their situation.

    Similarity is the cosine of standardised features: raw ones differ in scale so much that every situation
    would resemble every other.

    Args:
        capacity: residuals kept.
        size: features of a residual.
    """

    def __init__(self, capacity: int = 1000, size: int = FEATURES) -> None:
        self._capacity = capacity
        self._residuals: list[Residual] = []
        self._oldest = 0
        self._features: Array = np.zeros((capacity, size), np.float32)
        self._standardize = Standardizer(size)
        self._directions: Array | None = None
        self._answer: tuple[tuple[tuple[float, ...], int], list[Similar]] | None = None

    def __len__(self) -> int:
        return len(self._residuals)

    @property
    def residuals(self) -> list[Residual]:
        """Every stored residual, oldest first."""
        return self._residuals[self._oldest :] + self._residuals[: self._oldest]

    def extend(self, residuals: Iterable[Residual]) -> None:
        """Store residuals, oldest first; the oldest stored ones make room."""
        new = list(residuals)
        if not new:
            return
        rows = as_array([residual.features for residual in new])
        self._standardize.update(rows)
        slots = [self._place(residual) for residual in new]
        self._features[slots[-self._capacity :]] = rows[-self._capacity :]
        self._directions, self._answer = None, None

    def find_similar(self, features: Sequence[float], k: int = 10) -> list[Similar]:
        """Return the `k` residuals from the most similar situations, the most similar first.

        The last answer is kept: a whole Predict phase asks about the situation it started in.
        """
        if not self._residuals or k < 1:
            return []
        question = (tuple(features), k)
        if self._answer and self._answer[0] == question:
            return self._answer[1]
        if self._directions is None:
            self._directions = _directions(self._standardize(self._features[: len(self._residuals)]))
        cosines = (self._directions * _directions(self._row(features))).sum(axis=1)
        best = np.argsort(-cosines, kind="stable")[:k]
        pairs = zip(best.tolist(), cosines[best].tolist(), strict=True)
        found = [Similar(self._residuals[i], min(max(cosine, -1.0), 1.0)) for i, cosine in pairs]
        self._answer = (question, found)
        return found

    def standardized(self, features: Sequence[float]) -> list[float]:
        """Return `features` in deviations from the mean of everything that was ever stored."""
        row: list[float] = self._row(features).tolist()
        return row

    def state_dict(self) -> dict[str, Any]:
        """Return the residuals, in the order of their slots, and the statistics of their features."""
        return {
            "residuals": list(self._residuals),
            "oldest": self._oldest,
            "standardizer": self._standardize.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` returned."""
        self._residuals, self._oldest = [], 0
        self.extend(map(Residual.from_saved, state["residuals"]))
        self._oldest = state["oldest"]
        self._standardize.load_state_dict(state["standardizer"])

    def _place(self, residual: Residual) -> int:
        """Put one residual in its slot and return the slot."""
        if len(self._residuals) < self._capacity:
            self._residuals.append(residual)
            return len(self._residuals) - 1
        slot = self._oldest
        self._residuals[slot] = residual
        self._oldest = (slot + 1) % self._capacity
        return slot

    def _row(self, features: Sequence[float]) -> Array:
        return self._standardize(as_array(features))


def _directions(rows: Array) -> Array:
    """Return rows [..., size] of length 1; zeros stay zeros."""
    lengths = np.sqrt((rows * rows).sum(axis=-1, keepdims=True))
    directions: Array = rows / np.maximum(lengths, 1e-12)
    return directions
