"""The reliability table of a configuration: how sure the predictor was, and how often it was right."""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np
import pandas as pd

from hybrid_sweep.analysis.cells import bins_in
from hybrid_sweep.analysis.intervals import half_width
from hybrid_sweep.store.runs import number
from hybrid_sweep.trainer.forecast.calibration import ReliabilityBin, bin_of

_SKILLS = {
    "confidence_skill": ("Confidence", "always saying the share that was confirmed so far"),
    "forecast_skill": ("The forecast of losses", "the last smoothed loss"),
}


def reliability(trials: pd.DataFrame, trial_id: str) -> list[ReliabilityBin]:
    """Return the reliability table of one configuration, the predictions of all its seeds together."""
    bins: dict[int, list[list[float]]] = defaultdict(list)
    for text in trials.loc[trials["trial_id"] == trial_id, "reliability"]:
        for row in bins_in(text, trial_id):
            bins[bin_of(row[1])].append(row)
    return [_together(bins[each]) for each in sorted(bins)]


def constant_brier(table: list[ReliabilityBin]) -> float | None:
    """Return the Brier score of the best constant forecast, p(1 − p); None without a prediction."""
    if not table:
        return None
    share = _together(table).accuracy
    return share * (1 - share)


def skills(trials: pd.DataFrame, trial_id: str) -> list[str]:
    """Return a sentence for each skill of a configuration that its runs tell: whether it is above 0.

    The 95 % interval is Student's t over seeds where several have the skill, else that over the jumps of the
    one run.
    """
    runs = trials[trials["trial_id"] == trial_id]
    return [_skill(runs, column, *words) for column, words in _SKILLS.items() if column in runs]


def _skill(runs: pd.DataFrame, column: str, what: str, simple: str) -> str:
    known = runs[runs[column].notna()]
    values = [float(value) for value in known[column]]
    if not values:
        return f"{what} was never scored: whether it has skill is not known."
    mean, half = sum(values) / len(values), half_width(values)
    low, high = mean - half, mean + half
    if len(values) == 1:
        low, high = (number(known[f"{column}_{end}"].iloc[0]) for end in ("low", "high"))
    if math.isnan(low):
        return f"{what} was scored on too few jumps or seeds to say whether it has skill ({mean:.2f})."
    found = f"{mean:.2f} [{low:.2f}, {high:.2f}], where 1 is perfect and 0 is {simple}"
    if low > 0:
        return f"{what} has skill here: {found}."
    if high < 0:
        return f"{what} has less than no skill here: {found}."
    return f"{what} has no skill here that can be told from none: {found}."


def _together(rows: list[ReliabilityBin] | list[list[float]]) -> ReliabilityBin:
    counts, confidences, accuracies = np.array(rows).T
    total = counts.sum()
    return ReliabilityBin(int(total), float(counts @ confidences / total), float(counts @ accuracies / total))
