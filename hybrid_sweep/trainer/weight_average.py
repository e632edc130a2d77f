"""WeightAverage: the mean of the weights over the end of a run."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

STRIDE = 10
"""Steps from one averaged checkpoint to the next: a tenth of the memory traffic, the same mean."""


class WeightAverage:
    """A uniform average of every tenth step's weights, as LAWA's of checkpoints (2306.03241).

    It filters what a constant learning rate leaves of the gradients' noise. BatchNorm's buffers are not
    averaged: they stay as the last forward passes left them, estimated for the weights of those steps, so a
    model with BatchNorm should see `torch.optim.swa_utils.update_bn` afterwards. Memory: one copy of the
    weights, in the tail alone.

    Args:
        parameters: shared with the trainer; written by `finish` alone.
    """

    def __init__(self, parameters: list[Tensor]) -> None:
        self._parameters = parameters
        self._mean: list[Tensor] = []
        self._steps = 0

    @torch.no_grad()
    def observe(self) -> None:
        """Take in a real step of the tail."""
        if self._steps == 0:
            self._mean = [p.clone() for p in self._parameters]
        elif self._steps % STRIDE == 0:
            torch._foreach_lerp_(self._mean, self._parameters, 1 / (self._steps // STRIDE + 1))
        self._steps += 1

    @torch.no_grad()
    def finish(self) -> bool:
        """Put the average into the parameters and forget it; return whether there was one."""
        mean, self._mean, self._steps = self._mean, [], 0
        if mean:
            torch._foreach_copy_(self._parameters, mean)
        return bool(mean)

    def state_dict(self) -> dict[str, Any]:
        """Return the average so far, copied."""
        return {"mean": [t.clone() for t in self._mean], "steps": self._steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        pairs = zip(state["mean"], self._parameters, strict=False)  # no mean before the tail
        self._mean = [t.to(p.device, copy=True) for t, p in pairs]
        self._steps = state["steps"]
