"""LossForecast: mixes RSSM-lite's word on a loss and the last smoothed loss by their measured skill."""

from __future__ import annotations

from math import exp, isfinite
from typing import Any, NamedTuple

import numpy as np

from hybrid_sweep.trainer.forecast.features import log_ratio

RIDGE = 1.0
"""Weight, in scored predictions, of the belief that the loss stays where it was."""
MEMORY = 0.8
"""Weight of a jump after one more: jumps change as training goes on."""
TRUST_RIDGE = 0.3
TRUST_MEMORY = 0.9
REACH = 2.0
"""Logarithms of loss ratios beyond this count as this: one jump that went wrong is one jump."""


class Outlook(NamedTuple):
    """What a forecast is made of; the next score makes another one.

    Attributes:
        level: last smoothed loss.
        offset: coefficient of 1: how jumps move the loss.
        model: coefficient of log(RSSM-lite's loss / level).
        shift: what the losses measured since the newest real step add.
        trust: share of all that which has been worth having.
    """

    level: float
    offset: float
    model: float
    shift: float
    trust: float

    def loss(self, modelled: float) -> float:
        """Return L̂ where RSSM-lite says `modelled`; the level itself where nothing is known."""
        said = _reach(log_ratio(modelled, self.level))
        return self.level * exp(_reach(self.trust * (self.offset + self.model * said + self.shift)))


class LossForecast:
    """Forecasts log(loss / level) as offset + a·log(modelled / level) + b·(what this jump has shown so far).

    A ridge regression on every scored prediction, the older jumps fading, towards 0: the forecast of the last
    smoothed loss, to which it keeps where nothing better has been learned. What this jump has shown is the
    mean of what offset and model left unexplained in its measured losses. Before the first of them the
    forecast is shrunk by its measured skill: by the slope, in [0, 1], of the losses first measured after
    past jumps on what had been forecast of them, which is 0 where that was worth nothing.
    """

    def __init__(self) -> None:
        self._matrix = np.zeros((3, 3))
        self._vector = np.zeros(3)
        self._product = self._square = 0.0  # of forecasts before a first measurement
        self._unexplained: list[float] = []  # by offset and model, since the newest real step
        self._solution: tuple[float, float, float] | None = (0.0, 0.0, 0.0)

    def outlook(self, level: float) -> Outlook:
        """Return what forecasts are made of now, for the last smoothed loss `level`."""
        if self._solution is None:
            solved = np.linalg.solve(self._matrix + RIDGE * np.eye(3), self._vector)
            self._solution = tuple(solved.tolist())
        offset, model, again = self._solution
        if self._unexplained:
            return Outlook(level, offset, model, again * self._shown, 1.0)
        trust = min(max(self._product / (self._square + TRUST_RIDGE), 0.0), 1.0)
        return Outlook(level, offset, model, 0.0, trust)

    def learn(self, level: float, modelled: float, actual: float) -> None:
        """Take in a loss that was measured where RSSM-lite said `modelled`; not finite ones are left out."""
        if not (isfinite(actual) and isfinite(modelled)):
            return
        now = self.outlook(level)
        said, found = _reach(log_ratio(modelled, level)), _reach(log_ratio(actual, level))
        explained = now.offset + now.model * said
        if not self._unexplained:
            self._product += explained * found
            self._square += explained * explained
        row = np.array([1.0, said, self._shown])
        self._matrix = self._matrix + np.outer(row, row)
        self._vector = self._vector + found * row
        self._solution = None
        self._unexplained = [*self._unexplained, found - explained]

    def end_jump(self) -> None:
        """Let what was learned fade: real steps have followed the jump that was scored, if one was."""
        if not self._unexplained:
            return
        self._unexplained, self._solution = [], None
        self._matrix, self._vector = MEMORY * self._matrix, MEMORY * self._vector
        self._product, self._square = TRUST_MEMORY * self._product, TRUST_MEMORY * self._square

    @property
    def _shown(self) -> float:
        return sum(self._unexplained) / len(self._unexplained) if self._unexplained else 0.0

    def state_dict(self) -> dict[str, Any]:
        """Return everything that learning changes; arrays are replaced and never written into."""
        return {
            "matrix": self._matrix,
            "vector": self._vector,
            "product": self._product,
            "square": self._square,
            "unexplained": self._unexplained,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` returned."""
        self._matrix, self._vector = np.asarray(state["matrix"]), np.asarray(state["vector"])
        self._product, self._square = state["product"], state["square"]
        self._unexplained = list(state["unexplained"])
        self._solution = None


def _reach(logarithm: float) -> float:
    return min(max(logarithm, -REACH), REACH)
