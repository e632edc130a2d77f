"""95 % intervals of means over seeds: Student's t, and the bootstrap where a seed may be infinite."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import stdev
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

LEVEL = 0.95
LEAST_SEEDS = 3
"""Fewer have no interval: that of two is 12.7 standard errors wide, and says nothing."""
RESAMPLES = 9999
_INFINITE = 1e9  # stands in for an infinity while resampled, so that a mean with one in it is beyond doubt


def with_intervals(means: pd.DataFrame, trials: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Return `means` with `seeds` and, for each of `columns`, `<name>_low` and `<name>_high` at the end.

    The interval of a mean over n seeds is mean ± t(n − 1) · s / √n, with s the sample standard deviation and
    t the quantile of `student_t`; it is not-a-number for fewer than `LEAST_SEEDS`. Where no configuration of
    `trials` has several seeds nothing is added.
    """
    if not trials["trial_id"].duplicated().any():
        return means
    import numpy as np  # here and below: a front of single runs on a terminal needs none of them

    groups = trials[trials["trial_id"].isin(means["trial_id"])].groupby("trial_id")
    seeds = groups.size().reindex(means["trial_id"]).to_numpy(dtype="int64")
    added: dict[str, Any] = {"seeds": seeds}
    quantiles = np.array(
        [student_t(int(count) - 1) if count >= LEAST_SEEDS else math.nan for count in seeds], dtype="float64"
    )
    for name in columns:
        spread = groups[name].std().reindex(means["trial_id"]).to_numpy(dtype="float64")
        half = quantiles * spread / np.sqrt(seeds)
        mean = means[name].to_numpy(dtype="float64")
        added |= {f"{name}_low": mean - half, f"{name}_high": mean + half}
    return means.assign(**added)


def shown(row: Mapping[str, Any] | pd.Series[Any], name: str, digits: int) -> str:
    """Return a value as a person reads it, "2.60", or "2.60 ± 0.20" where the row has its interval."""
    low, high = row.get(f"{name}_low", math.nan), row.get(f"{name}_high", math.nan)
    value = f"{row[name]:.{digits}f}"
    return value if math.isnan(high - low) else f"{value} ± {(high - low) / 2:.{digits}f}"


def student_t(freedom: int) -> float:
    """Return the half-width of a 95 % interval in standard errors; not-a-number below 1 degree of freedom."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + LEVEL) / 2)) if freedom >= 1 else math.nan


def half_width(values: Sequence[float]) -> float:
    """Return half the 95 % interval of a mean, Student's t; not-a-number below `LEAST_SEEDS` values."""
    count = len(values)
    return student_t(count - 1) * stdev(values) / math.sqrt(count) if count >= LEAST_SEEDS else math.nan


def too_few(seeds: int) -> str:
    """Return the sentence that so many seeds have no interval; "" for one, and for enough of them."""
    if not 1 < seeds < LEAST_SEEDS:
        return ""
    return f"{seeds} seeds are too few for an interval: run with --repeats {LEAST_SEEDS} or more"


def bootstrap_interval(values: Sequence[float] | NDArray[np.float64]) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the mean of independent `values`, which may be infinite.

    The expanded percentile interval, whose level is raised so that it is as wide as Student's t for few
    values (Hesterberg 2015, What Teachers Should Know About the Bootstrap, 5.3): the plain percentile and
    BCa intervals of 5 normal values hold their mean in 84 % of cases, this one in 92 %; of 3 in 75 %. The
    same values give the same interval. One value gives not-a-number.
    """
    import numpy as np
    from scipy.special import ndtr
    from scipy.stats import bootstrap

    count = len(values)
    if count < 2:
        return math.nan, math.nan
    reach = math.sqrt(count / (count - 1)) * student_t(count - 1)
    found = bootstrap(
        (np.clip(np.asarray(values, dtype="float64"), -_INFINITE, _INFINITE),),
        np.mean,
        n_resamples=RESAMPLES,
        confidence_level=float(ndtr(reach) - ndtr(-reach)),
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    low, high = (end if abs(end) < 1e-3 * _INFINITE else math.copysign(math.inf, end) for end in found)
    return float(low), float(high)
