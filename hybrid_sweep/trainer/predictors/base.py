"""What a predictor owes the trainer: a direction per step for every parameter, and how it held up."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import torch
from torch import Tensor, nn

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
    """A source of the direction of a jump, fed with real steps only.

    It owns its buffers and never the parameters, which it reads and, in `apply`, moves in place. `observe`
    runs after every real step and must be cheap; `close_full` runs once a cycle.

    Args:
        groups: the parameters, shared with the trainer.
        decay: β of the average, per real step.
        full_steps: real steps of a Full phase.
    """

    def __init__(self, groups: LayerGroups, decay: float, full_steps: int) -> None:
        self.groups = groups
        self.decay = decay
        self.observed = 0
        self._start = [p.clone() for p in groups.parameters]
        self._start_observed = 0
        self._proposed: list[Tensor] | None = None
        self._squares: list[float] = []  # of the proposed direction, by group

    @abstractmethod
    def observe(self) -> None:
        """Take in the real step that just ended."""

    @abstractmethod
    def direction(self) -> list[Tensor]:
        """Return v̂, the predicted displacement of one step, as fresh tensors shaped like the parameters."""

    def _moved(self, delta: list[Tensor]) -> None:
        """Keep the predictor's own buffers unaware of a predicted `delta`; nothing by default."""

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
    def apply(self, steps: Sequence[float]) -> None:
        """Move every parameter of group g by `steps[g]` steps of the direction, in place."""
        delta = self.direction()
        torch._foreach_mul_(delta, [steps[g] for g in self.groups.of_parameter])
        torch._foreach_add_(self.groups.parameters, delta)
        self._moved(delta)

    @torch.no_grad()
    def close_full(self) -> tuple[Realised | None, float | None]:
        """End a Full phase.

        Returns:
            How the previously proposed direction held up, and the cosine between that direction and the
            one proposed now; None for both in the first cycle.
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
        pe = sum(self.groups.dots(proposed, earlier))
        realised = Realised(
            ratios=tuple(_ratio(a, steps * b) for a, b in zip(dv, vv, strict=True)),
            cosines=tuple(_ratio(a, (b * c) ** 0.5) for a, b, c in zip(dv, vv, dd, strict=True)),
            overall=_ratio(sum(dv), steps * sum(vv)),
        )
        return realised, _ratio(pe, (sum(self._squares) * sum(vv)) ** 0.5)

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


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator > 0 else 0.0
