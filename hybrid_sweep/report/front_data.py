"""What every picture of a front shows: the configurations, their controls, the front, and the frame."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from hybrid_sweep.analysis.comparison import Confirmation
from hybrid_sweep.analysis.objectives import MIN_QUALITY, hypervolume_reference, quality_kind, speedup_column
from hybrid_sweep.analysis.pareto import (
    best_point,
    configurations,
    control_points,
    hypervolume,
    pareto_front,
    rivals,
)

LADDER_ARM = "lr"
"""The control whose curve stands beside every front: fewer steps at a higher learning rate."""
_TWINS = ("truncated", "frozen", "lr_matched")
_LABELLED = 8  # a longer front is too crowded for more than one name
_NAME_WIDTH, _NAME_HEIGHT = 0.18, 0.04  # as shares of the picture


@dataclass(frozen=True, kw_only=True, slots=True)
class FrontPicture:
    """Speed across, quality up.

    Attributes:
        speedup: The column that is the sweep's speed.
        quality: How its workload compares held-out results.
        points: All done configurations, with `x`, `y`, and `truncated`, `frozen` and `lr_matched`: the
            quality that these controls reach, drawn at the configuration's own speed.
        controls: The controls that ran on their own, with `arm`, `x` and `y`, slowest first.
        front: The rows of `points` on the front, fastest first; with several seeds also `seeds`, and
            `x_low`, `x_high`, `y_low` and `y_high`, the 95 % intervals of the means.
        reference: The corner of the hypervolume, as (speedup, quality).
        hypervolume: The area that the front dominates beyond it.
        min_quality: The quality that the recommended point shall have.
        best: The id of the point that the analyzer lines recommend, None for an empty front.
        frame: Lowest and highest quality to draw; a rare far outlier may lie outside.
        width: Slowest and fastest speed to draw; an interval may reach beyond either.
        confirmed: Points run again on fresh seeds, with `trial_id`, `x`, `y` and the ends of both intervals.
    """

    speedup: str
    quality: str
    points: pd.DataFrame
    controls: pd.DataFrame
    front: pd.DataFrame
    reference: tuple[float, float]
    hypervolume: float
    min_quality: float
    best: str | None
    frame: tuple[float, float]
    width: tuple[float, float]
    confirmed: pd.DataFrame

    @property
    def twins(self) -> list[str]:
        """Return the controls of single configurations that there are, by their columns."""
        return [name for name in _TWINS if self.points[name].notna().any()]

    @property
    def best_first(self) -> pd.DataFrame:
        """The front with the recommended point before all others."""
        return self.front.sort_values("trial_id", key=lambda ids: ids != self.best, kind="stable")

    @property
    def labelled(self) -> pd.DataFrame:
        """The front points to name: the best, and in a short front all whose names do not cover another's."""
        best_first = self.best_first
        if len(best_first) > _LABELLED:
            return best_first.head(1)
        wide = _NAME_WIDTH * (self.width[1] - self.width[0])
        high = _NAME_HEIGHT * (self.frame[1] - self.frame[0])
        places = list(zip(best_first["x"], best_first["y"], strict=True))
        named: list[int] = []
        for number, (x, y) in enumerate(places):
            if all(abs(x - places[other][0]) > wide or abs(y - places[other][1]) > high for other in named):
                named.append(number)
        return best_first.iloc[named]

    @property
    def dominated(self) -> list[tuple[float, float]]:
        """The corners of the hypervolume: of the area between the staircase and the reference point."""
        low_x, low_y = self.reference
        stairs = [(max(x, low_x), max(y, low_y)) for x, y in zip(*staircase(self.front), strict=True)]
        return [(low_x, low_y), (low_x, stairs[0][1]), *stairs, (stairs[-1][0], low_y)] if stairs else []

    @property
    def seeds(self) -> int:
        """How many seeds the means and intervals of the front are over; 1 where it has no intervals."""
        return int(self.front["seeds"].max()) if "seeds" in self.front and len(self.front) else 1

    @property
    def outside(self) -> int:
        """How many configurations lie below the frame."""
        return int((self.points["y"] < self.frame[0]).sum())


def front_picture(
    trials: pd.DataFrame,
    manifest: Mapping[str, Any],
    min_quality: float = MIN_QUALITY,
    confirmation: Confirmation | None = None,
) -> FrontPicture:
    """Return what to draw of a sweep, and of its confirmation where it has one."""
    speedup, reference = speedup_column(manifest), hypervolume_reference(manifest)
    kind = quality_kind(manifest)
    done = _with_controls(configurations(trials), speedup, kind)
    points = done[np.isfinite(done["x"]) & np.isfinite(done["y"])]
    controls = control_points(trials)
    controls = controls.assign(x=controls[speedup].astype("float64"), y=controls["quality"].astype("float64"))
    controls = controls[np.isfinite(controls["x"]) & np.isfinite(controls["y"])].sort_values("x")
    front = _with_controls(pareto_front(trials, speedup), speedup, kind)
    for axis, column in (("x", speedup), ("y", "quality")):
        if f"{column}_low" in front:
            front = front.assign(**{f"{axis}_{end}": front[f"{column}_{end}"] for end in ("low", "high")})
    best = best_point(front, min_quality, rivals(front, trials, speedup, kind))
    again = _confirmed(confirmation)
    shown = pd.concat([front, again]) if len(again) else front
    return FrontPicture(
        speedup=speedup,
        quality=kind,
        points=points,
        controls=controls,
        front=front,
        reference=reference,
        hypervolume=hypervolume(trials, reference, speedup),
        min_quality=min_quality,
        best=None if best is None else str(best["trial_id"]),
        frame=_frame(points, shown, controls),
        width=_width(pd.concat([points, again]) if len(again) else points, shown, controls),
        confirmed=again,
    )


def ladder(picture: FrontPicture, arm: str = LADDER_ARM) -> pd.DataFrame:
    """Return speeds `x` of an arm and the best quality `y` that it reaches so fast or faster.

    Plain training (1, 1) is the slowest of `LADDER_ARM`.
    """
    rows = picture.controls.loc[picture.controls["arm"] == arm, ["x", "y"]]
    if arm == LADDER_ARM:
        rows = pd.concat([pd.DataFrame({"x": [1.0], "y": [1.0]}), rows], ignore_index=True).sort_values("x")
    return rows.assign(y=rows["y"][::-1].cummax()[::-1])


def staircase(front: pd.DataFrame) -> tuple[list[float], list[float]]:
    """Return the corners of what the front attains, from slowest to fastest, without bridging its gaps."""
    points = list(zip(front["x"], front["y"], strict=True))[::-1]
    corners = points[:1]
    for (slower, _), (faster, quality) in pairwise(points):
        corners += [(slower, quality), (faster, quality)]
    return [x for x, _ in corners], [y for _, y in corners]


def error_bars(rows: pd.DataFrame, axis: str) -> tuple[pd.Series[float], pd.Series[float]]:
    """Return how far each row's interval on `axis`, "x" or "y", reaches below its mean and above it."""
    return rows[axis] - rows[f"{axis}_low"], rows[f"{axis}_high"] - rows[axis]


def _confirmed(confirmation: Confirmation | None) -> pd.DataFrame:
    """Return the confirmed points on the axes of the sweep: whole runs, validation split."""
    axes = {"x": "speedup_whole_run", "y": "val_quality"}
    names = {f"{name}{end}": f"{axis}{end}" for axis, name in axes.items() for end in ("", "_low", "_high")}
    if confirmation is None:
        return pd.DataFrame(columns=["trial_id", *names.values()])
    rows = confirmation.table[confirmation.table["arm"] == "reference"]
    return rows[["trial_id", *names]].rename(columns=names)


def _with_controls(rows: pd.DataFrame, speedup: str, kind: str) -> pd.DataFrame:
    quality = rows["quality"].astype("float64")
    against = {name: rows[f"quality_vs_{name}"].astype("float64") for name in _TWINS}
    if kind.endswith("gap"):  # as in a trial, what has diverged is worth nothing
        own = {name: (1 + quality - gain).replace(-np.inf, 0.0) for name, gain in against.items()}
    else:
        own = {name: quality / gain for name, gain in against.items()}
    return rows.assign(x=rows[speedup].astype("float64"), y=quality, **own)


def _frame(points: pd.DataFrame, front: pd.DataFrame, controls: pd.DataFrame) -> tuple[float, float]:
    """Return a range that holds the front, plain training and all but far outliers."""
    beside = controls.loc[controls["arm"] == LADDER_ARM, "y"]
    values = pd.concat([points["y"], points["truncated"], points["frozen"], points["lr_matched"], beside])
    values = values[np.isfinite(values)]
    if values.empty:
        return 0.9, 1.05
    low, high = values.quantile(0.25), values.quantile(0.75)
    reach = 2.5 * max(high - low, 0.01)
    must_show = pd.concat([front["y"], _ends(front, "y", low - reach, high + reach), pd.Series([1.0])])
    bottom = min(values[values >= low - reach].min(), must_show.min())
    top = max(values[values <= high + reach].max(), must_show.max())
    margin = 0.06 * max(top - bottom, 0.01)
    return float(bottom - margin), float(top + margin)


def _width(points: pd.DataFrame, front: pd.DataFrame, controls: pd.DataFrame) -> tuple[float, float]:
    """Return a range that holds every point, the ladder, and room for the last point's name."""
    beside = controls.loc[controls["arm"] == LADDER_ARM, "x"]
    speeds = pd.concat([points["x"], beside, pd.Series([1.0] if len(points) else [1.0, 2.0])])
    span = max(speeds.max() - speeds.min(), 0.5)
    ends = _ends(front, "x", speeds.min() - 0.5 * span, speeds.max() + 0.5 * span)
    slowest, fastest = min(speeds.min(), ends.min()), max(speeds.max(), ends.max())
    return float(slowest - 0.05 * span), float(fastest + 0.14 * span)


def _ends(front: pd.DataFrame, axis: str, lowest: float, highest: float) -> pd.Series[Any]:
    """Return the ends of the front's intervals, no farther out than asked."""
    if f"{axis}_low" not in front:
        return front[axis]
    ends: pd.Series[Any] = pd.concat([front[f"{axis}_low"], front[f"{axis}_high"]])
    return ends.clip(lowest, highest)
