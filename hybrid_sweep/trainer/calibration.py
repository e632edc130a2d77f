"""Calibration: what a confidence has been worth so far, learned from predictions whose loss was measured."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

import numpy as np

Calibration = Literal["none", "binned", "isotonic"]

BINS = 10
MINIMUM_COUNT = 20
MEMORY = 0.98
"""Weight of an outcome after one more decision: a gate shut by bad outcomes opens again as they fade."""


class ReliabilityBin(NamedTuple):
    """Predictions of similar confidence: how many, how sure, and the share that came true."""

    predictions: int
    confidence: float
    accuracy: float


class Calibrator:
    """Turns a raw confidence into the share of predictions of that confidence that came true.

    "binned" is the seed's histogram (Enhancement 6), which trusts a bin once it holds `MINIMUM_COUNT`
    outcomes and returns the raw confidence until then. "isotonic" fits the nearest curve that never falls
    through the same bins (Zadrozny and Elkan 2002), each as heavy as its outcomes, and reads between them.

    Args:
        calibration: "none" returns the raw confidence.
    """

    def __init__(self, calibration: Calibration = "none") -> None:
        self._calibration = calibration
        self._counts = [0.0] * BINS
        self._accurate = [0.0] * BINS

    def __call__(self, raw: float) -> float:
        """Return the calibrated confidence, in [0, 1]."""
        if self._calibration == "binned":
            bin_ = bin_of(raw)
            return self._accuracy(bin_, raw)
        if self._calibration == "isotonic" and max(self._counts) >= MINIMUM_COUNT:
            from scipy.optimize import isotonic_regression  # a tenth of a second that no other run needs

            centres = (np.arange(BINS) + 0.5) / BINS
            shares = [self._accuracy(bin_, centre) for bin_, centre in enumerate(centres.tolist())]
            curve = isotonic_regression(shares, weights=np.maximum(self._counts, 1e-3)).x
            return float(np.interp(raw, centres, curve))
        return raw

    def learn(self, raw: float, accurate: bool) -> None:
        """Take in one outcome."""
        self._counts[bin_of(raw)] += 1
        self._accurate[bin_of(raw)] += accurate

    def fade(self) -> None:
        """Let every outcome so far weigh less: called once a decision."""
        self._counts = [MEMORY * count for count in self._counts]
        self._accurate = [MEMORY * count for count in self._accurate]

    def state_dict(self) -> dict[str, Any]:
        """Return the bins, copied."""
        return {"counts": list(self._counts), "accurate": list(self._accurate)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` returned."""
        self._counts, self._accurate = list(state["counts"]), list(state["accurate"])

    def _accuracy(self, bin_: int, otherwise: float) -> float:
        if self._counts[bin_] < MINIMUM_COUNT:
            return otherwise
        return self._accurate[bin_] / self._counts[bin_]


def bin_of(confidence: float, bins: int = BINS) -> int:
    """Return the bin of equal width that a confidence in [0, 1] falls into; 1 falls into the last."""
    return min(int(confidence * bins), bins - 1)


def reliability(scores: Iterable[tuple[float, bool]], bins: int = BINS) -> list[ReliabilityBin]:
    """Return the reliability table of (confidence, whether it came true), without its empty bins."""
    filled: dict[int, list[tuple[float, bool]]] = {}
    for pair in scores:
        filled.setdefault(bin_of(pair[0], bins), []).append(pair)
    return [
        ReliabilityBin(len(pairs), *(sum(column) / len(pairs) for column in zip(*pairs, strict=True)))
        for _, pairs in sorted(filled.items())
    ]
