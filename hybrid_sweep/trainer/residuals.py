"""What the predictor got wrong, and in which situation: the memory that corrections are drawn from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from hybrid_sweep.trainer.features import FEATURES, Standardizer, as_tensor


@dataclass(frozen=True, slots=True)
class LayerResidual:
    """What one layer group did, other than predicted.

    Attributes:
        name: of the layer group.
        magnitude: realised gate − used gate; positive where the group moved further than the jump had it.
        cosine: between realised and predicted displacement of the group, in [−1, 1].
    """

    name: str
    magnitude: float
    cosine: float


@dataclass(frozen=True, slots=True)
class Residual:
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
    def from_plain(cls, plain: Sequence[Any]) -> Residual:
        """Rebuild from the nested tuples that `plain_residuals` yields."""
        step, phase, horizon, loss_residual, layers, features, confidence = plain
        rebuilt = tuple(LayerResidual(*layer) for layer in layers)
        return cls(step, phase, horizon, loss_residual, rebuilt, tuple(features), confidence)


@dataclass(frozen=True, slots=True)
class Similar:
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
        self._plain: list[tuple[Any, ...]] = []
        self._oldest = 0
        self._features = torch.zeros(capacity, size, dtype=torch.float32, device="cpu")
        self._standardize = Standardizer(size)
        self._directions: Tensor | None = None
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
        rows = [residual.features for residual in new]
        self._standardize.update(rows)
        slots = [self._place(residual, row) for residual, row in zip(new, plain_residuals(new), strict=True)]
        self._features[slots[-self._capacity :]] = as_tensor(rows[-self._capacity :])
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
            self._directions = normalize(self._standardize(self._features[: len(self._residuals)]))
        query = normalize(self._row(features), dim=0)
        best = torch.mv(self._directions, query).topk(min(k, len(self._residuals)))
        pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        found = [Similar(self._residuals[i], min(max(cosine, -1.0), 1.0)) for i, cosine in pairs]
        self._answer = (question, found)
        return found

    def standardized(self, features: Sequence[float]) -> list[float]:
        """Return `features` in deviations from the mean of everything that was ever stored."""
        row: list[float] = self._row(features).tolist()
        return row

    def state_dict(self) -> dict[str, Any]:
        """Return the residuals as plain tuples, in the order of their slots, and their statistics."""
        return {
            "residuals": list(self._plain),
            "oldest": self._oldest,
            "standardizer": self._standardize.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` returned."""
        self._residuals, self._plain, self._oldest = [], [], 0
        self.extend(map(Residual.from_plain, state["residuals"]))
        self._oldest = state["oldest"]
        self._standardize.load_state_dict(state["standardizer"])

    def _place(self, residual: Residual, plain: tuple[Any, ...]) -> int:
        """Put one residual in its slot and return the slot."""
        if len(self._residuals) < self._capacity:
            self._residuals.append(residual)
            self._plain.append(plain)
            return len(self._residuals) - 1
        slot = self._oldest
        self._residuals[slot], self._plain[slot] = residual, plain
        self._oldest = (slot + 1) % self._capacity
        return slot

    def _row(self, features: Sequence[float]) -> Tensor:
        return self._standardize(as_tensor(features))


def plain_residuals(residuals: Sequence[Residual]) -> Iterator[tuple[Any, ...]]:
    """Yield each residual as nested tuples of numbers and names, which any checkpoint format holds."""
    layers: tuple[LayerResidual, ...] = ()
    plain_layers: tuple[tuple[str, float, float], ...] = ()
    for r in residuals:
        if r.layers is not layers:  # the residuals of one phase share theirs
            layers = r.layers
            plain_layers = tuple((layer.name, layer.magnitude, layer.cosine) for layer in layers)
        yield (r.step, r.phase, r.horizon, r.loss_residual, plain_layers, r.features, r.confidence)
