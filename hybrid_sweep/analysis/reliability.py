"""The reliability table of a configuration: how sure the predictor was, and how often it was right."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import NamedTuple

import pandas as pd

BINS = 10


class Reliability(NamedTuple):
    """The predictions of one tenth of confidence: how many, how sure on average, what share came true."""

    predictions: int
    confidence: float
    accuracy: float


def reliability(trials: pd.DataFrame, trial_id: str) -> list[Reliability]:
    """Return the reliability table of one configuration, the predictions of all its seeds together."""
    sums: dict[int, list[float]] = defaultdict(lambda: [0, 0.0, 0.0])
    for text in trials.loc[trials["trial_id"] == trial_id, "reliability"]:
        for count, confidence, accuracy in json.loads(text or "[]"):
            total = sums[min(int(BINS * confidence), BINS - 1)]
            for i, value in enumerate((count, count * confidence, count * accuracy)):
                total[i] += value
    return [
        Reliability(int(count), confidence / count, accuracy / count)
        for _, (count, confidence, accuracy) in sorted(sums.items())
    ]


def constant_brier(table: list[Reliability]) -> float | None:
    """Return the Brier score of the best constant forecast, p(1 − p); None without a prediction."""
    total = sum(each.predictions for each in table)
    if not total:
        return None
    share = sum(each.predictions * each.accuracy for each in table) / total
    return share * (1 - share)
