"""The reliability table of a configuration: how sure the predictor was, and how often it was right."""

from __future__ import annotations

import json
from collections import defaultdict

import numpy as np
import pandas as pd

from hybrid_sweep.trainer.calibration import ReliabilityBin, bin_of


def reliability(trials: pd.DataFrame, trial_id: str) -> list[ReliabilityBin]:
    """Return the reliability table of one configuration, the predictions of all its seeds together."""
    bins: dict[int, list[list[float]]] = defaultdict(list)
    for text in trials.loc[trials["trial_id"] == trial_id, "reliability"]:
        for row in json.loads(text or "[]"):
            bins[bin_of(row[1])].append(row)
    return [_together(bins[each]) for each in sorted(bins)]


def constant_brier(table: list[ReliabilityBin]) -> float | None:
    """Return the Brier score of the best constant forecast, p(1 − p); None without a prediction."""
    if not table:
        return None
    share = _together(table).accuracy
    return share * (1 - share)


def _together(rows: list[ReliabilityBin] | list[list[float]]) -> ReliabilityBin:
    counts, confidences, accuracies = np.array(rows).T
    total = counts.sum()
    return ReliabilityBin(int(total), float(counts @ confidences / total), float(counts @ accuracies / total))
