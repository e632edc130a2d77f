"""Windowed: what predictors share that fit a few averages of the weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hybrid_sweep.trainer.layer_groups import LayerGroups
from hybrid_sweep.trainer.predictors.base import Predictor

WINDOWS = 5
"""Windows of a Full phase."""


class Windowed(Predictor):
    """Keeps how the weights' mean over a window of K/5 real steps changed from each window to the next.

    Averaging comes before fitting, for in single snapshots the noise of the gradients drowns what is slow
    (docs/design-notes.md, Formulas). A jump breaks the chain: no increment reaches across one.

    Args:
        groups: the weights, shared with the trainer.
        decay: of other predictors; unused.
        full_steps: K, real steps of a Full phase.
    """

    copied = ("mean", "sum")
    kept: int
    """Increments that are kept."""

    def __init__(self, groups: LayerGroups, decay: float, full_steps: int) -> None:
        super().__init__(groups, decay, full_steps)
        self.window_steps = max(full_steps // WINDOWS, 1)
        self.increments: list[Tensor] = []
        self.follows: list[bool] = []  # whether each increment begins where the one before ended
        self.gram: list[list[float]] = []
        self.mean = groups.vector.clone()  # of the newest whole window
        self._sum = torch.zeros_like(groups.vector)
        self._taken = 0
        self._windows = 0  # whole ones since the newest jump

    @torch.no_grad()
    def observe(self) -> None:
        """Take in the real step that just ended."""
        super().observe()
        self._sum.add_(self.groups.vector)
        self._taken += 1
        if self._taken == self.window_steps:
            self._end_window()

    def combined(self, coefficients: Sequence[float]) -> Tensor:
        """Return the sum of the increments with these coefficients, as a fresh tensor [n]."""
        total = torch.zeros_like(self.groups.vector)
        for coefficient, increment in zip(coefficients, self.increments, strict=True):
            total.add_(increment, alpha=coefficient)
        return total

    def _end_window(self) -> None:
        self._sum.div_(self._taken)
        increment = self._sum - self.mean
        self.mean, self._sum = self._sum, self.mean
        self._sum.zero_()
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
        products: list[float] = torch.stack([torch.dot(increment, u) for u in self.increments]).tolist()
        for row, product in zip(self.gram, products[:-1], strict=True):
            row.append(product)
        self.gram.append(products)

    def _moved(self, delta: Tensor, steps: Sequence[float]) -> None:
        self.mean.add_(delta)
        self._sum.zero_()
        self._taken = self._windows = 0

    def state_dict(self) -> dict[str, Any]:
        """Return every buffer, copied where it is written into."""
        return {
            **super().state_dict(),
            "increments": list(self.increments),
            "follows": list(self.follows),
            "gram": [list(row) for row in self.gram],
            "mean": self._copy(self.mean),
            "sum": self._copy(self._sum),
            "taken": self._taken,
            "windows": self._windows,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state)
        self.increments = [self._here(increment) for increment in state["increments"]]
        self.follows = list(state["follows"])
        self.gram = [list(row) for row in state["gram"]]
        self.mean, self._sum = (self._here(state[name]).clone() for name in ("mean", "sum"))
        self._taken, self._windows = state["taken"], state["windows"]
