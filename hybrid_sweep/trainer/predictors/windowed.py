"""Windowed: what predictors share that fit a few averages of the weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hybrid_sweep.trainer.predictors.base import LayerGroups, Predictor

WINDOWS = 5
"""Windows of a Full phase."""


class Windowed(Predictor):
    """Keeps how the weights' mean over a window of K/5 real steps changed from each window to the next.

    Averaging comes before fitting, for in single snapshots the noise of the gradients drowns what is slow
    (predictive-training §4c). A jump breaks the chain: no increment reaches across one.

    Args:
        groups: the parameters, shared with the trainer.
        decay: of other predictors; unused.
        full_steps: K, real steps of a Full phase.
    """

    kept: int
    """Increments that are kept."""

    def __init__(self, groups: LayerGroups, decay: float, full_steps: int) -> None:
        super().__init__(groups, decay, full_steps)
        self.window_steps = max(full_steps // WINDOWS, 1)
        self.increments: list[list[Tensor]] = []
        self.follows: list[bool] = []  # whether each increment begins where the one before ended
        self.gram: list[list[float]] = []
        self.mean: list[Tensor] = [p.clone() for p in groups.parameters]  # of the newest whole window
        self._sum = [torch.zeros_like(p) for p in groups.parameters]
        self._taken = 0
        self._windows = 0  # whole ones since the newest jump

    @torch.no_grad()
    def observe(self) -> None:
        """Take in the real step that just ended."""
        super().observe()
        torch._foreach_add_(self._sum, self.groups.parameters)
        self._taken += 1
        if self._taken == self.window_steps:
            self._end_window()

    def combined(self, coefficients: Sequence[float]) -> list[Tensor]:
        """Return the sum of the increments with these coefficients, as fresh tensors."""
        total = [torch.zeros_like(p) for p in self.groups.parameters]
        for coefficient, increment in zip(coefficients, self.increments, strict=True):
            torch._foreach_add_(total, increment, alpha=float(coefficient))
        return total

    def _end_window(self) -> None:
        torch._foreach_div_(self._sum, self._taken)
        increment = list(torch._foreach_sub(self._sum, self.mean))
        self.mean, self._sum = self._sum, self.mean
        torch._foreach_zero_(self._sum)
        self._taken = 0
        self._windows += 1
        if self._windows == 1:
            return
        if len(self.increments) == self.kept:
            del self.increments[0], self.follows[0], self.gram[0]
            for row in self.gram:
                del row[0]
        self.increments.append(increment)
        self.follows.append(self._windows > 2)
        products = [sum(self.groups.dots(increment, other)) for other in self.increments]
        for row, product in zip(self.gram, products[:-1], strict=True):
            row.append(product)
        self.gram.append(products)

    def _moved(self, delta: list[Tensor], steps: Sequence[float]) -> None:
        torch._foreach_add_(self.mean, delta)
        torch._foreach_zero_(self._sum)
        self._taken = self._windows = 0

    def state_dict(self) -> dict[str, Any]:
        """Return every buffer, copied where it is written into."""
        return {
            **super().state_dict(),
            "increments": list(self.increments),
            "follows": list(self.follows),
            "gram": [list(row) for row in self.gram],
            "mean": [t.clone() for t in self.mean],
            "sum": [t.clone() for t in self._sum],
            "taken": self._taken,
            "windows": self._windows,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state)
        self.increments = [self._here(increment) for increment in state["increments"]]
        self.follows = list(state["follows"])
        self.gram = [list(row) for row in state["gram"]]
        self.mean = [t.clone() for t in self._here(state["mean"])]
        self._sum = [t.clone() for t in self._here(state["sum"])]
        self._taken, self._windows = state["taken"], state["windows"]
