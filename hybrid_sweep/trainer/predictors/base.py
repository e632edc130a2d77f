"""What a predictor owes the trainer: a displacement of every parameter, and how it held up."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, Self

import torch
from torch import Tensor

from hybrid_sweep.trainer.config import HybridConfig
from hybrid_sweep.trainer.layer_groups import LayerGroups, Sample
from hybrid_sweep.trainer.parted import parts_of
from hybrid_sweep.trainer.train_step import TrainStep


@dataclass(frozen=True, slots=True, kw_only=True)
class Realised:
    """The real displacement of the last Full phase against the direction proposed before it.

    Attributes:
        ratios: a*_g = ⟨d_g, v_g⟩ / (K‖v_g‖²) for each group, unclipped: 1 where the direction held.
        weights: ‖v_g‖² of each group; () counts all groups alike.
    """

    ratios: tuple[float, ...]
    weights: tuple[float, ...] = ()


class Predictor(ABC):
    """A source of the displacement of a jump, fed with real steps only.

    It owns its buffers and never the weights, which it reads and, in `apply`, moves in place. `observe`
    runs after every real step and must be cheap; `close_full` runs once a cycle. Between two Full phases the
    displacement stays what it is, so that a jump can be taken back.

    Args:
        groups: the weights, shared with the trainer.
        decay: β of an average, per real step.
        full_steps: K, real steps of a Full phase.
    """

    exact = False
    """Whether the displacement is the true one, learning-rate schedule and all, and so is never scaled."""
    copied: tuple[str, ...] = ()
    """What of `state_dict` is a vector [n] that `load_state_dict` copies too, so that it can be recycled."""

    def __init__(self, groups: LayerGroups, decay: float, full_steps: int) -> None:
        self.groups = groups
        self.decay = decay
        self.full_steps = full_steps
        self.observed = 0
        self.finite = True
        """Whether weights and direction were free of NaN and infinities when the last Full phase ended."""
        self._sample = Sample(groups)
        self._start = self._sample(groups.vector)  # of the Full phase
        self._start_observed = 0
        self._proposed: Tensor | None = None
        self._spare: list[Tensor] = []  # vectors [n] without an owner: fresh memory costs more than a copy

    @classmethod
    def from_config(cls, groups: LayerGroups, config: HybridConfig, plain: TrainStep) -> Self:
        """Build the predictor of a run; `plain` holds its model and optimizer.

        Raises:
            UserError: this predictor cannot work with that optimizer.
        """
        return cls(groups, config.velocity_decay, config.full_steps)

    @abstractmethod
    def displacement(self, begin: float, end: float) -> Tensor:
        """Return the displacement [n] from `begin` to `end` steps after the newest real one, fresh."""

    def direction(self) -> Tensor:
        """Return the mean displacement [n] of a step over the next K, as a fresh tensor."""
        return self.displacement(0, self.full_steps).div_(self.full_steps)

    def observe(self) -> None:
        """Take in the real step that just ended."""
        self.observed += 1

    def _moved(self, delta: Tensor, steps: Sequence[float]) -> None:
        """Take note of a predicted `delta`, worth `steps[g]` steps of group g; nothing by default."""

    def _sampled_direction(self, weights: Tensor) -> Tensor:
        """Return `direction` on the sample [m], of which `weights` [m] are those of now."""
        return self._sample(self.direction())

    def _close(self, steps: int) -> None:
        """Take in the end of a Full phase of `steps` real steps; nothing by default."""

    @property
    def ready(self) -> bool:
        """Whether a direction exists."""
        return self.observed > 0

    @torch.no_grad()
    def apply(self, factors: Sequence[float], begin: float, end: float) -> None:
        """Move every parameter of group g by `factors[g]` × `displacement(begin, end)`, in place."""
        delta = self.displacement(begin, end)
        self.groups.scale_(delta, factors)
        self.groups.hold_frozen_(delta)
        self.groups.vector.add_(delta)
        self._moved(delta, [factor * (end - begin) for factor in factors])
        if not (self._spare or parts_of(delta)[0].is_cuda):  # whose memory comes from torch's own pool
            self._spare = [delta]

    @torch.no_grad()
    def close_full(self) -> tuple[Realised | None, float | None]:
        """End a Full phase.

        Returns:
            How the previously proposed direction held up, None in the first cycle; and the cosine between
            that direction and the one proposed now, None where one of the two is missing or zero. Both are
            measured on a sample of the coordinates.
        """
        steps = self.observed - self._start_observed
        self._close(steps)
        weights = self._sample(self.groups.vector)
        earlier, self._proposed = self._proposed, self._sampled_direction(weights)
        self.finite = self.look() and isfinite(float(torch.linalg.vector_norm(self._proposed)))
        if earlier is None or steps == 0:
            return None, None
        grams = self._sample.grams([weights - self._start, earlier, self._proposed])
        vv, ww = ([gram[i][i] for gram in grams] for i in (1, 2))
        dv, vw = [gram[0][1] for gram in grams], [gram[1][2] for gram in grams]
        lengths = (sum(vv) * sum(ww)) ** 0.5
        ratios = tuple(_ratio(a, steps * b) for a, b in zip(dv, vv, strict=True))
        realised = Realised(ratios=ratios, weights=tuple(vv))
        return realised, sum(vw) / lengths if lengths > 0 else None

    def look(self) -> bool:
        """Return whether the weights are finite."""
        return isfinite(float(torch.linalg.vector_norm(self.groups.vector)))

    @torch.no_grad()
    def start_full(self) -> None:
        """Mark where the next Full phase starts."""
        self._start = self._sample(self.groups.vector)
        self._start_observed = self.observed

    def recycle(self, state: dict[str, Any]) -> None:
        """Let the next `state_dict` write over the vectors of an earlier one, which no one else has."""
        vectors = [state[name] for name in self.copied]
        self._spare += [vector for vector in vectors if self.groups.fits(vector)]  # of other parameters: none

    def _blank(self) -> Tensor:
        """Return a vector [n] whose values are of no use."""
        return self._spare.pop() if self._spare else torch.empty_like(self.groups.vector)

    def _copy(self, vector: Tensor) -> Tensor:
        """Return a copy of a vector [n]."""
        return self._blank().copy_(vector)

    def state_dict(self) -> dict[str, Any]:
        """Return every buffer, copied where it is written into."""
        return {
            "observed": self.observed,
            "finite": self.finite,
            "start": self._start,
            "start_observed": self._start_observed,
            "proposed": self._proposed,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.observed, self.finite = state["observed"], state["finite"]
        self._start = self._here(state["start"])
        self._start_observed = state["start_observed"]
        self._proposed = None if state["proposed"] is None else self._here(state["proposed"])

    def _here(self, saved: Tensor | Sequence[Tensor]) -> Tensor:
        """Return a saved buffer on the device of the weights."""
        return self.groups.here(saved)


class Linear(Predictor):
    """A predictor whose displacement is a direction times the number of steps."""

    @abstractmethod
    def direction(self) -> Tensor:
        """Return v̂, the predicted displacement [n] of one step, as a fresh tensor."""

    def displacement(self, begin: float, end: float) -> Tensor:
        """Return v̂ times the steps."""
        return self.direction().mul_(end - begin)


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator > 0 else 0.0
