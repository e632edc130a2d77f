"""pareto.png: the front, its controls and the reference in one still picture."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybrid_sweep.report.front_data import LADDER_ARM, FrontPicture, error_bars, ladder, staircase
from hybrid_sweep.store.atomic import replacing

if TYPE_CHECKING:
    import pandas as pd

SPEED_LABELS = {
    "speedup": "speedup over plain training (wall clock)",
    "speedup_counted": "speedup over plain training (counted work × unit costs)",
}
QUALITY_LABELS = {
    "loss_ratio": "quality: held-out loss of plain training / of the trial",
    "accuracy_ratio": "quality: held-out accuracy of the trial / of plain training",
    "max_ratio": "quality: held-out metric of the trial / of plain training",
    "min_ratio": "quality: held-out metric of plain training / of the trial",
    "max_gap": "quality: 1 − gap to plain training's held-out metric / what that gained",
    "min_gap": "quality: 1 − gap to plain training's held-out metric / what that gained",
    "loss_gap": "quality: 1 − gap to plain training's held-out loss / what that gained",
}

_INK, _GREY, _GRID = "#1d2733", "#8c99a8", "#e4e9ef"
_FRONT, _TRUNCATED, _FROZEN, _LADDER = "#0b62c4", "#c8540a", "#9a5fb5", "#1f7a4d"
_CONFIRMED = "#b3123c"
_SHAPES = {LADDER_ARM: "s", "momentum": "P", "tuned": "D", "average": "o", "schedule_free": "^"}
_CONTROLS: dict[str, tuple[str, dict[str, Any]]] = {  # column of the quality -> label and marks
    "lr_matched": (
        "matched control: its real steps, learning rate × m",
        {"s": 24, "marker": "s", "facecolor": "none", "edgecolor": _LADDER, "alpha": 0.7},
    ),
    "frozen": (
        "frozen control: same phases, no displacement",
        {"s": 26, "marker": "x", "color": _FROZEN, "alpha": 0.6},
    ),
    "truncated": (
        "truncated control: plain training, as many backward passes",
        {"s": 24, "marker": "v", "facecolor": "none", "edgecolor": _TRUNCATED, "alpha": 0.8},
    ),
}
NAMES = {
    LADDER_ARM: "plain training: fewer steps, higher learning rate",
    "momentum": "heavy ball, μ = 1 − 1/s",
    "tuned": "tuned SGD-Nesterov or AdamW",
    "average": "tail average of plain training",
    "schedule_free": "tuned Schedule-Free",
}


def write_front(picture: FrontPicture, path: Path, title: str) -> None:
    """Draw a front as a PNG of 1600 × 1000 pixels."""
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # without a home it tells where its cache is
    from matplotlib.figure import Figure  # slow to load, and only drawing needs it

    figure = Figure(figsize=(10, 6.25), dpi=160, layout="constrained", facecolor="white")
    _draw(figure.add_subplot(), picture, title)
    figure.legend(loc="outside lower center", ncols=3, fontsize=8.5, frameon=False, labelcolor=_INK)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")


def _draw(axes: Any, picture: FrontPicture, title: str) -> None:
    points, front = picture.points, picture.front
    axes.set_axisbelow(True)
    axes.grid(color=_GRID, linewidth=0.8)
    if len(front):
        axes.fill(*zip(*picture.dominated, strict=True), color=_FRONT, alpha=0.07, linewidth=0)
        axes.plot(*staircase(front), color=_FRONT, linewidth=1.8, zorder=4)
        axes.vlines(front["x"], front["truncated"], front["y"], color=_TRUNCATED, linewidth=1, linestyle=":")
    for arm, name in NAMES.items():
        curve = ladder(picture, arm)
        if len(curve) > (arm == LADDER_ARM):
            colour = _LADDER if arm == LADDER_ARM else _GREY
            axes.plot(
                curve["x"], curve["y"], "--", color=colour, marker=_SHAPES[arm], markersize=5, label=name
            )
    for column in picture.twins:
        label, marks = _CONTROLS[column]
        axes.scatter(points["x"], points[column], label=label, linewidth=1.1, **marks)
    dots = {"color": _GREY, "edgecolor": "white", "linewidth": 0.7, "zorder": 3}
    axes.scatter(points["x"], points["y"], 34, label=f"configurations ({len(points)})", **dots)
    if picture.seeds > 1:
        label = f"95 % interval of the mean over {picture.seeds} seeds"
        _crosses(axes, front, fmt="none", ecolor=_FRONT, alpha=0.55, zorder=4, label=label)
    dots = {"color": _FRONT, "edgecolor": "white", "linewidth": 1.2, "zorder": 5}
    axes.scatter(front["x"], front["y"], 62, label=f"Pareto front ({len(front)})", **dots)
    if len(again := picture.confirmed):
        label = "confirmed on fresh seeds"
        _crosses(axes, again, fmt="D", color=_CONFIRMED, markersize=6, zorder=6, label=label)
    axes.scatter([1], [1], 170, marker="*", color=_INK, zorder=6, label="plain training (1, 1)")
    for point in picture.labelled.itertuples():
        axes.annotate(
            str(point.trial_id),
            (point.x, point.y),
            xytext=(7, 7),
            textcoords="offset points",
            fontsize=8,
            color=_FRONT,
            annotation_clip=True,
        )
    _frame(axes, picture, title)


def _crosses(axes: Any, rows: pd.DataFrame, **style: Any) -> None:
    """Draw the intervals of points in both directions."""
    ends = {"xerr": error_bars(rows, "x"), "yerr": error_bars(rows, "y")}
    axes.errorbar(rows["x"], rows["y"], **ends, elinewidth=1.1, capsize=2.5, **style)


def _frame(axes: Any, picture: FrontPicture, title: str) -> None:
    axes.set_xlim(*picture.width)
    axes.set_ylim(*picture.frame)
    axes.set_xlabel(SPEED_LABELS[picture.speedup], color=_INK)
    axes.set_ylabel(QUALITY_LABELS[picture.quality], color=_INK)
    axes.set_title(title.replace("$", r"\$"), loc="left", fontsize=13, fontweight="bold", color=_INK, pad=22)
    reference = f"({picture.reference[0]:g}, {picture.reference[1]:g})"
    below = f"   {picture.outside} below the frame" if picture.outside else ""
    axes.text(
        0,
        1.02,
        f"hypervolume {picture.hypervolume:.4f} against {reference}{below}",
        transform=axes.transAxes,
        fontsize=9,
        color=_GREY,
    )
    if not len(picture.points):
        axes.text(0.5, 0.5, "no configuration is done", transform=axes.transAxes, ha="center", color=_GREY)
    axes.tick_params(colors=_INK, labelsize=9)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(_GRID)
