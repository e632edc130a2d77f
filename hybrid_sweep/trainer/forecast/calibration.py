"""Calibration: what a confidence has been worth so far, learned from predictions whose loss was measured."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

import numpy as np

Calibration = Literal["none", "binned", "isotonic"]

BINS = 10
SHOWN = 3
"""What a jump has shown once it is measured: every forecast of its losses failed, some did, none did."""
SHARE_WEIGHT = 10.0
"""Outcomes that the share confirmed in all slots counts for in each."""
RAW_WEIGHT = 2.0
"""Outcomes that the raw confidence counts for in that share."""
MEMORY, IDLE_MEMORY = 0.98, 0.9
"""Weight of an outcome after one more decision, and after one since which nothing was measured: a gate that
bad outcomes have shut opens again as they fade."""


class ReliabilityBin(NamedTuple):
    """Predictions of similar confidence: how many, how sure, and the share that came true."""

    predictions: int
    confidence: float
    accuracy: float


class Calibrator:
    """Turns a raw confidence into the share of predictions of that confidence that came true.

    "binned" is the original's histogram (Enhancement 6): the share of a raw confidence's bin that came true,
    shrunk towards the share of all outcomes, and that towards the raw confidence, so that few outcomes say
    little. "isotonic" fits the nearest curve that never falls through the shares of the bins (Zadrozny and
    Elkan 2002), each as heavy as its outcomes, and reads between them. Once losses have been measured after a
    jump both go by what those have shown instead: it says more of the next one than any raw confidence.

    Args:
        calibration: "none" returns the raw confidence.
    """

    def __init__(self, calibration: Calibration = "none") -> None:
        self._calibration = calibration
        self._counts = [0.0] * (BINS + SHOWN)
        self._accurate = [0.0] * (BINS + SHOWN)

    def __call__(self, raw: float, shown: float | None = None) -> float:
        """Return the calibrated confidence, in [0, 1].

        Args:
            raw: the confidence to be corrected.
            shown: share of the predictions since the newest real step that came true; None without one.
        """
        if self._calibration == "none":
            return raw
        if self._calibration == "binned" or shown is not None:
            return self._accuracy(_slot(raw, shown), raw)
        from scipy.optimize import isotonic_regression  # a tenth of a second that no other run needs

        centres = (np.arange(BINS) + 0.5) / BINS
        shares = [self._accuracy(bin_, raw) for bin_ in range(BINS)]
        if not any(self._counts[:BINS]):
            return shares[bin_of(raw)]
        curve = isotonic_regression(shares, weights=np.maximum(self._counts[:BINS], 1e-3)).x
        return float(np.interp(raw, centres, curve))

    def learn(self, raw: float, accurate: bool, shown: float | None = None) -> None:
        """Take in one outcome."""
        slot = _slot(raw, shown)
        self._counts[slot] += 1
        self._accurate[slot] += accurate

    def fade(self, *, idle: bool = False) -> None:
        """Let every outcome so far weigh less: once a decision, `idle` where none came since the last."""
        memory = IDLE_MEMORY if idle else MEMORY
        self._counts = [memory * count for count in self._counts]
        self._accurate = [memory * count for count in self._accurate]

    def state_dict(self) -> dict[str, Any]:
        """Return the bins, copied."""
        return {"counts": list(self._counts), "accurate": list(self._accurate)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` returned."""
        self._counts, self._accurate = list(state["counts"]), list(state["accurate"])

    def _accuracy(self, slot: int, raw: float) -> float:
        """Return the share of a slot's outcomes that came true, as far as there are any."""
        share = (sum(self._accurate) + RAW_WEIGHT * raw) / (sum(self._counts) + RAW_WEIGHT)
        return (self._accurate[slot] + SHARE_WEIGHT * share) / (self._counts[slot] + SHARE_WEIGHT)


def _slot(raw: float, shown: float | None) -> int:
    return bin_of(raw) if shown is None else BINS + (shown > 0) + (shown == 1)


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
