"""The Pareto front of a sweep, speed against quality, and how much of the plane it dominates."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

import moocore
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hybrid_sweep.analysis.intervals import with_intervals
from hybrid_sweep.analysis.objectives import MIN_QUALITY
from hybrid_sweep.analysis.table import hybrid_runs
from hybrid_sweep.control import ABLATION
from hybrid_sweep.store.columns import SETTINGS
from hybrid_sweep.store.runs import number

TWIN = "lr_matched"
"""The control at the same real steps whose learning rate makes up for those that are left out."""
_NOT_MEASURED = ("seed", "number", *SETTINGS)


def configurations(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row a configuration that is done on all its seeds: with several seeds, their means.

    All its seeds are as many as any configuration of the table was started with. `seed` then reads "0,1,2",
    and `behaviour` lists the different ones. Controls are no configurations.
    """
    return _means(hybrid_runs(table))


def control_points(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row a control that is done on all its seeds, as `configurations` does.

    Of a tuned arm it is the trial of the best quality at each number of backward passes.
    """
    rows = _means(table[table["arm"] != ""]).sort_values("quality", ascending=False, kind="stable")
    best = ~rows.duplicated(["arm", "backward_calls"]) | (rows["arm"] == ABLATION)
    return rows[best].reset_index(drop=True)


def _means(table: pd.DataFrame) -> pd.DataFrame:
    seeds = table[table["state"] == "done"].groupby("trial_id").size()
    most = table["trial_id"].value_counts().max()
    rows = table.loc[table["trial_id"].isin(seeds.index[seeds == most])]
    if not rows["trial_id"].duplicated().any():
        return rows.reset_index(drop=True)
    groups = rows.groupby("trial_id", sort=False)
    means = groups.first()
    numeric = [name for name in rows.select_dtypes("number").columns if name not in _NOT_MEASURED]
    means[numeric] = rows[numeric].astype("float64").groupby(rows["trial_id"], sort=False).mean()
    means["seed"] = groups["seed"].agg(_listed)
    if "behaviour" in means:
        means["behaviour"] = groups["behaviour"].agg(_listed)
    return means.reset_index()[list(table.columns)]


def pareto_front(table: pd.DataFrame, x: str = "speedup", y: str = "quality") -> pd.DataFrame:
    """Return the configurations that no other beats in both `x` and `y`, larger being better, by falling `x`.

    Configurations with equal `x` and `y` are all kept, in the order of their ids. One whose seeds are not
    all done, or whose `x` or `y` is not finite on one of them, is left out. Where configurations were
    repeated, the front is that of their means, and `seeds` and the 95 % intervals of `x` and `y` follow as
    the last columns (`with_intervals`).
    """
    return with_intervals(_front(table, x, y), table, (x, y))


def _front(table: pd.DataFrame, x: str, y: str) -> pd.DataFrame:
    measured = np.isfinite(_points(table, x, y)).all(axis=1)
    rows = configurations(table)
    rows = rows.loc[~rows["trial_id"].isin(table["trial_id"].to_numpy()[~measured])]
    if len(rows):
        best = moocore.is_nondominated(_points(rows, x, y), maximise=True, keep_weakly=True)
        rows = rows.loc[np.asarray(best, dtype=bool)]
    return rows.sort_values([x, y, "trial_id"], ascending=[False, False, True]).reset_index(drop=True)


def hypervolume(
    table: pd.DataFrame, reference: tuple[float, float] = (1.0, 0.90), x: str = "speedup", y: str = "quality"
) -> float:
    """Return the area that the front dominates beyond `reference`, in units of `x` times units of `y`."""
    points = _points(_front(table, x, y), x, y)
    return float(moocore.hypervolume(points, ref=reference, maximise=True))


def _points(rows: pd.DataFrame, x: str, y: str) -> NDArray[np.float64]:
    return rows[[x, y]].to_numpy(dtype="float64", na_value=np.nan)


def _listed(values: pd.Series[Any]) -> str:
    return ",".join(str(value) for value in sorted(values.unique()))


class Rival(NamedTuple):
    """A control that is as fast as a front point and as good, and better in one of the two.

    Attributes:
        name: id of its run; of a twin, which takes the point's own real steps, its arm.
        arm: which control it is.
        speedup: its own; of a twin the point's, which is the least that it has.
        quality: its own.
    """

    name: str
    arm: str
    speedup: float
    quality: float


def rivals(
    front: pd.DataFrame, trials: pd.DataFrame, x: str = "speedup", kind: str = "loss_ratio"
) -> dict[str, Rival]:
    """Return the front points that a control of the same sweep beats on both axes, each with its best rival.

    The controls are those that ran on their own (`control_points`, without the ablations, which predict too)
    and the point's twin at a matched learning rate, which takes the same real steps and no predictor's work.

    Args:
        front: of the sweep.
        trials: all runs of the sweep, controls among them.
        x: the sweep's speed.
        kind: how its workload compares held-out results, a `workload.Quality`.
    """
    own = control_points(trials)
    found: dict[str, Rival] = {}
    runs = [
        Rival(str(row["trial_id"]), str(row["arm"]), float(row[x]), float(row["quality"]))
        for row in own[own["arm"] != ABLATION].to_dict("records")
        if np.isfinite([row[x], row["quality"]]).all()
    ]
    for row in front.to_dict("records"):
        speed, quality = float(row[x]), float(row["quality"])
        gain = number(row.get(f"quality_vs_{TWIN}"))
        ahead = [rival for rival in runs if rival.speedup >= speed and rival.quality >= quality]
        ahead = [rival for rival in ahead if (rival.speedup, rival.quality) != (speed, quality)]
        if 0 < gain < 1:
            twin = 1 + quality - gain if kind.endswith("gap") else quality / gain
            ahead.append(Rival(TWIN, TWIN, speed, twin))
        if ahead:
            found[str(row["trial_id"])] = max(ahead, key=lambda rival: (rival.quality, rival.speedup))
    return found


def compared_arms(trials: pd.DataFrame) -> set[str]:
    """Return which controls a sweep has run to their end, its points' twins among them."""
    arms = set(map(str, trials.loc[trials["state"] == "done", "arm"])) - {"", ABLATION}
    return arms | ({TWIN} if trials[f"quality_vs_{TWIN}"].notna().any() else set())


def best_point(
    front: pd.DataFrame, min_quality: float = MIN_QUALITY, beaten: Collection[str] = ()
) -> pd.Series[Any] | None:
    """Return the fastest point of a front with at least `min_quality`, else its best one, None if empty.

    One that a control beats (`rivals`) is taken only where there is no other of that quality.
    """
    if front.empty:
        return None
    good = front[front["quality"] >= min_quality]
    if not len(good):
        return front.iloc[-1]
    unbeaten = good[~good["trial_id"].isin(list(beaten))] if beaten else good
    return (unbeaten if len(unbeaten) else good).iloc[0]


def recommended(
    trials: pd.DataFrame, x: str = "speedup", kind: str = "loss_ratio", min_quality: float = MIN_QUALITY
) -> pd.Series[Any] | None:
    """Return the `best_point` of a sweep's runs, its controls among them; None where none is done."""
    front = pareto_front(trials, x)
    return best_point(front, min_quality, rivals(front, trials, x, kind))
