"""What a predictor owes the trainer: a displacement of every parameter, and how it held up."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, Self

import torch
from torch import Tensor, nn

from hybrid_sweep.trainer.config import HybridConfig
from hybrid_sweep.trainer.plain import PlainStep

MAX_GROUPS = 8
"""Layer groups that the weight-delta head scales (seed, Weight Delta Prediction)."""


@dataclass(frozen=True, slots=True)
class LayerGroups:
    """Trainable parameters in model order, cut into at most eight contiguous groups of layers.

    Attributes:
        parameters: every parameter with `requires_grad`, in the model's order.
        of_parameter: group index of each parameter.
        names: name of the first layer of each group.
    """

    parameters: list[Tensor]
    of_parameter: list[int]
    names: tuple[str, ...]

    @classmethod
    def of(cls, model: nn.Module) -> LayerGroups:
        """Group the model's trainable parameters by the module that owns them."""
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        layers = list(dict.fromkeys(name.rpartition(".")[0] for name, _ in named))
        count = min(len(layers), MAX_GROUPS)
        group_of = {layer: i * count // len(layers) for i, layer in enumerate(layers)}
        names = {group_of[layer]: layer for layer in reversed(layers)}
        return cls(
            parameters=[p.detach() for _, p in named],
            of_parameter=[group_of[name.rpartition(".")[0]] for name, _ in named],
            names=tuple(names[i] or "model" for i in range(count)),
        )

    def dots(self, left: Sequence[Tensor], right: Sequence[Tensor]) -> list[float]:
        """Return the inner product of each group, of one tensor a parameter on either side."""
        pairs = zip(left, right, strict=True)
        return self._sums([torch.dot(a.flatten(), b.flatten()) for a, b in pairs])

    def squares(self, tensors: Sequence[Tensor]) -> list[float]:
        """Return the squared norm of each group, of one tensor a parameter."""
        norms = list(torch._foreach_norm(list(tensors)))
        torch._foreach_mul_(norms, norms)
        return self._sums(norms)

    def _sums(self, per_parameter: Sequence[Tensor]) -> list[float]:
        totals = [0.0] * len(self.names)
        for group, value in zip(self.of_parameter, torch.stack(list(per_parameter)).tolist(), strict=True):
            totals[group] += value
        return totals


@dataclass(frozen=True, slots=True, kw_only=True)
class Realised:
    """The real displacement of the last Full phase against the direction proposed before it.

    Attributes:
        ratios: a*_g = ⟨d_g, v_g⟩ / (K‖v_g‖²) for each group, unclipped: 1 where the direction held.
        cosines: cos(d_g, v_g) for each group.
        overall: the ratio over all groups together.
    """

    ratios: tuple[float, ...]
    cosines: tuple[float, ...]
    overall: float


class Predictor(ABC):
    """A source of the displacement of a jump, fed with real steps only.

    It owns its buffers and never the parameters, which it reads and, in `apply`, moves in place. `observe`
    runs after every real step and must be cheap; `close_full` runs once a cycle. Between two Full phases the
    displacement stays what it is, so that a jump can be taken back.

    Args:
        groups: the parameters, shared with the trainer.
        decay: β of an average, per real step.
        full_steps: K, real steps of a Full phase.
    """

    exact = False
    """Whether the displacement is the true one, learning-rate schedule and all, and so is never scaled."""

    def __init__(self, groups: LayerGroups, decay: float, full_steps: int) -> None:
        self.groups = groups
        self.decay = decay
        self.full_steps = full_steps
        self.observed = 0
        self._start = [p.clone() for p in groups.parameters]
        self._start_observed = 0
        self._proposed: list[Tensor] | None = None
        self._squares: list[float] = []  # of the proposed direction, by group

    @classmethod
    def of(cls, groups: LayerGroups, config: HybridConfig, plain: PlainStep) -> Self:
        """Build the predictor of a run; `plain` holds its model and optimizer.

        Raises:
            UserError: this predictor cannot work with that optimizer.
        """
        return cls(groups, config.velocity_decay, config.full_steps)

    @abstractmethod
    def displacement(self, begin: float, end: float) -> list[Tensor]:
        """Return the predicted displacement from `begin` to `end` steps after the newest real one.

        Fresh tensors, shaped like the parameters.
        """

    def direction(self) -> list[Tensor]:
        """Return the mean displacement of a step over the next K, as fresh tensors."""
        ahead = self.displacement(0, self.full_steps)
        torch._foreach_mul_(ahead, 1 / self.full_steps)
        return ahead

    def observe(self) -> None:
        """Take in the real step that just ended."""
        self.observed += 1

    def _moved(self, delta: list[Tensor], steps: Sequence[float]) -> None:
        """Take note of a predicted `delta`, worth `steps[g]` steps of group g; nothing by default."""

    def _close(self, displacement: list[Tensor], steps: int) -> None:
        """Take in the displacement of a whole Full phase of `steps` real steps; nothing by default."""

    @property
    def ready(self) -> bool:
        """Whether a direction exists."""
        return self.observed > 0

    @property
    def finite(self) -> bool:
        """Whether the direction proposed last is free of NaN and infinities, and with it the weights."""
        return isfinite(sum(self._squares))

    @torch.no_grad()
    def apply(self, factors: Sequence[float], begin: float, end: float) -> None:
        """Move every parameter of group g by `factors[g]` × `displacement(begin, end)`, in place."""
        delta = self.displacement(begin, end)
        torch._foreach_mul_(delta, [factors[g] for g in self.groups.of_parameter])
        torch._foreach_add_(self.groups.parameters, delta)
        self._moved(delta, [factor * (end - begin) for factor in factors])

    @torch.no_grad()
    def close_full(self) -> tuple[Realised | None, float | None]:
        """End a Full phase.

        Returns:
            How the previously proposed direction held up, None in the first cycle; and the cosine between
            that direction and the one proposed now, None where one of the two is missing or zero.
        """
        steps = self.observed - self._start_observed
        displacement = list(torch._foreach_sub(self.groups.parameters, self._start))
        self._close(displacement, steps)
        proposed, earlier = self.direction(), self._proposed
        self._proposed = proposed
        if earlier is None or steps == 0:
            self._squares = self.groups.squares(proposed)
            return None, None
        dv = self.groups.dots(displacement, earlier)
        vv, self._squares = self._squares, self.groups.squares(proposed)
        dd = self.groups.squares(displacement)
        norms = (sum(self._squares) * sum(vv)) ** 0.5
        realised = Realised(
            ratios=tuple(_ratio(a, steps * b) for a, b in zip(dv, vv, strict=True)),
            cosines=tuple(_ratio(a, (b * c) ** 0.5) for a, b, c in zip(dv, vv, dd, strict=True)),
            overall=_ratio(sum(dv), steps * sum(vv)),
        )
        return realised, sum(self.groups.dots(proposed, earlier)) / norms if norms > 0 else None

    @torch.no_grad()
    def start_full(self) -> None:
        """Mark where the next Full phase starts."""
        torch._foreach_copy_(self._start, self.groups.parameters)
        self._start_observed = self.observed

    def state_dict(self) -> dict[str, Any]:
        """Return every buffer, copied where it is written into."""
        return {
            "observed": self.observed,
            "start": [t.clone() for t in self._start],
            "start_observed": self._start_observed,
            "proposed": self._proposed,
            "squares": list(self._squares),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.observed = state["observed"]
        self._start = [t.clone() for t in self._here(state["start"])]
        self._start_observed = state["start_observed"]
        self._proposed = None if state["proposed"] is None else self._here(state["proposed"])
        self._squares = list(state["squares"])

    def _here(self, saved: Sequence[Tensor]) -> list[Tensor]:
        """Return saved buffers, one a parameter, on the devices of the parameters."""
        return [t.to(p.device) for t, p in zip(saved, self.groups.parameters, strict=True)]


class Linear(Predictor):
    """A predictor whose displacement is a direction times the number of steps."""

    @abstractmethod
    def direction(self) -> list[Tensor]:
        """Return v̂, the predicted displacement of one step, as fresh tensors shaped like the parameters."""

    def displacement(self, begin: float, end: float) -> list[Tensor]:
        """Return v̂ times the steps."""
        ahead = self.direction()
        torch._foreach_mul_(ahead, end - begin)
        return ahead


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator > 0 else 0.0
