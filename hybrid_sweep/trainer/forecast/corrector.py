"""Corrections of a prediction by what similar predictions got wrong, without a backward pass."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from operator import mul
from typing import Any

from hybrid_sweep.trainer.forecast.features import FEATURES
from hybrid_sweep.trainer.forecast.residuals import ResidualStore, Similar

MEMORY_SHARE = 0.7
MODEL_SHARE = 0.3
DECAY_STEPS = 100


class Corrector:
    """Weighs the residuals of similar situations, and learns a linear model of the loss residual beside them.

    Args:
        store: where residuals are kept, and the statistics by which features are standardised.
        k: similar residuals that a correction is drawn from.
        max_correction: bound of a correction, relative to what is corrected.
        temporal_decay: weight of a residual that is 100 logical steps old, against a new one.
        learning_rate: share of a feature's error that one update of the linear model removes, about.
        size: features of a residual.
    """

    def __init__(
        self,
        store: ResidualStore,
        *,
        k: int = 10,
        max_correction: float = 0.2,
        temporal_decay: float = 0.95,
        learning_rate: float = 0.01,
        size: int = FEATURES,
    ) -> None:
        self._store = store
        self._k = k
        self._max_correction = max_correction
        self._temporal_decay = temporal_decay
        self._rate = min(learning_rate * (size + 1), 1.0)
        self._weights = [0.0] * (size + 1)

    def learn(self, loss_residual: float, features: Sequence[float]) -> None:
        """Teach the linear model one measured residual; one that is not finite is left out.

        Normalised least mean squares on standardised features, w += μ·e·x/‖x‖² with μ = learning rate × size
        ≤ 1, which is stable whatever the scale of the loss.

        Args:
            loss_residual: actual − predicted loss.
            features: of the situation in which the prediction was made.
        """
        if not isfinite(loss_residual):
            return
        inputs = [*self._store.standardized(features), 1.0]
        gain = self._rate * (loss_residual - _dot(self._weights, inputs)) / _dot(inputs, inputs)
        self._weights = [weight + gain * value for weight, value in zip(self._weights, inputs, strict=True)]

    def loss_correction(self, level: float, features: Sequence[float], step: int) -> float:
        """Return what to add to RSSM-lite's losses (original, Correct phase; shares from upstream).

        0.7 · weighted mean of the similar loss residuals + 0.3 · linear model, within ±max_correction ·
        |level|.

        Args:
            level: smoothed loss, the scale of what is corrected.
            features: of the present situation.
            step: the present logical step.
        """
        similar = self._store.find_similar(features, self._k)
        weights = self.residual_weights(similar, step)
        pairs = zip(weights, similar, strict=True)
        remembered = sum(weight * item.residual.loss_residual for weight, item in pairs)
        limit = self._max_correction * abs(level)
        correction = MEMORY_SHARE * remembered + MODEL_SHARE * self.modelled(features)
        return min(max(correction, -limit), limit)

    def group_corrections(
        self, features: Sequence[float], step: int, groups: Sequence[str]
    ) -> tuple[float, ...]:
        """Return the relative correction c of each layer group's displacement, to be applied as δ·(1 + c).

        The weighted mean of the group's residuals (realised − used gate) in similar situations, within
        ±max_correction; 0 where there is none.

        Args:
            features: of the present situation.
            step: the present logical step.
            groups: names of the layer groups.
        """
        similar = self._store.find_similar(features, self._k)
        sums = dict.fromkeys(groups, (0.0, 0.0))
        for weight, item in zip(self.residual_weights(similar, step), similar, strict=True):
            for layer in item.residual.layers:
                if layer.name in sums and isfinite(layer.magnitude):
                    total, of_weights = sums[layer.name]
                    sums[layer.name] = (total + weight * layer.magnitude, of_weights + weight)
        limit = self._max_correction
        means = (total / of_weights if of_weights else 0.0 for total, of_weights in sums.values())
        return tuple(min(max(mean, -limit), limit) for mean in means)

    def residual_weights(self, similar: Sequence[Similar], step: int) -> list[float]:
        """Return weights that sum to 1, by recency × confidence × similarity mapped to [0, 1].

        All are 0 where no residual deserves any.
        """
        raw = [
            self._temporal_decay ** (max(step - item.residual.step, 0) / DECAY_STEPS)
            * item.residual.confidence
            * (1 + item.similarity)
            / 2
            for item in similar
        ]
        total = sum(raw)
        return [weight / total for weight in raw] if total else raw

    def modelled(self, features: Sequence[float]) -> float:
        """Return the loss residual that the linear model expects."""
        return _dot(self._weights, [*self._store.standardized(features), 1.0])

    def state_dict(self) -> dict[str, Any]:
        """Return the linear model; the store keeps its own state."""
        return {"weights": self._weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` returned."""
        self._weights = list(state["weights"])


def micro_correction_due(step_in_phase: int, interval: int) -> bool:
    """Return whether a micro-correction falls on a step of Predict, 1…P (seed: I > 0 and k mod I = 0)."""
    return interval > 0 and step_in_phase > 0 and step_in_phase % interval == 0


def _dot(left: Sequence[float], right: Sequence[float]) -> float:
    return float(sum(map(mul, left, right)))
