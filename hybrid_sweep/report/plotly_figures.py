"""The report's interactive figures as plain Plotly data; colours are CSS variables that the page resolves."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any

import pandas as pd

from hybrid_sweep.analysis.cells import settings_in
from hybrid_sweep.errors import EXACT_AS_FLOAT
from hybrid_sweep.report.front_data import LADDER_ARM, FrontPicture, error_bars, ladder, staircase
from hybrid_sweep.report.pareto_png import NAMES, QUALITY_LABELS, SPEED_LABELS
from hybrid_sweep.store.columns import SETTINGS

Figure = dict[str, Any]
"""`data` and `layout` as Plotly's JavaScript takes them; "--name" stands for that colour of the page."""

_CONTROLS = {  # column of the quality -> name, colour, symbol, size, line
    "truncated": ("truncated control", "--truncated", "triangle-down-open", 7, 1.3),
    "frozen": ("frozen control", "--frozen", "x-thin", 7, 1.4),
    "lr_matched": ("matched control", "--matched", "square-open", 6, 1.2),
}
_MANY_VALUES = 12  # a setting with more values than this is drawn as a scatter, not as boxes


def front_figure(picture: FrontPicture) -> Figure:
    """Return speed against quality: front, configurations, their controls and plain training."""
    points, front = picture.points, picture.front
    traces = [
        _dominated(picture),
        _threads(front),
        *(_markers(points, column, *_CONTROLS[column]) for column in picture.twins),
        *_curves(picture),
        _markers(points, "y", "configurations", "--point", "circle", 8),
        {**_markers(front, "y", "Pareto front", "--front", "circle", 12, ring=True), **_intervals(picture)},
        {
            **_trace("plain training (1, 1)", [1], [1], "--ink", "star", 16),
            "hovertemplate": "plain training<br>speedup 1, quality 1<extra></extra>",
        },
    ]
    stairs_x, stairs_y = staircase(front)
    line = {"color": "--front", "width": 2}
    stairs = {"type": "scatter", "mode": "lines", "x": stairs_x, "y": stairs_y, "line": line}
    traces.insert(-2, {**stairs, "hoverinfo": "skip", "showlegend": False})
    if len(again := picture.confirmed):
        name = "confirmed on fresh seeds"
        trace = _trace(
            f"{name} ({len(again)})", again["x"].tolist(), again["y"].tolist(), "--confirmed", "diamond", 10
        )
        trace |= {"text": [f"{name}<br>{point}" for point in _names(again)], **_bars(again, "--confirmed")}
        traces.append(
            {**trace, "hovertemplate": "%{text}<br>speedup %{x:.3f}, quality %{y:.4f}<extra></extra>"}
        )
    layout = {
        "xaxis": {
            "title": {"text": SPEED_LABELS[picture.speedup]},
            "ticksuffix": "×",
            "range": list(picture.width),
        },
        "yaxis": {"title": {"text": QUALITY_LABELS[picture.quality]}, "range": list(picture.frame)},
        "annotations": _labels(picture) or _empty(points),
        "height": 560,
    }
    return {"data": traces, "layout": layout}


def in_light_colours(figure: Figure) -> Figure:
    """Return a figure whose colours, the names of the report's, are those of its light page."""
    css = (files("hybrid_sweep.report") / "templates/report.css").read_text(encoding="utf-8")
    colours = dict(re.findall(r"(--[a-z-]+): ([^;]+);", css.partition("@media")[0]))
    found: Figure = _coloured(figure, colours)
    return found


def _coloured(value: Any, colours: Mapping[str, str]) -> Any:
    if isinstance(value, Mapping):
        return {name: _coloured(inner, colours) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_coloured(inner, colours) for inner in value]
    return colours.get(value, value) if isinstance(value, str) else value


def settings_figure(picture: FrontPicture, names: Sequence[str]) -> Figure:
    """Return small multiples: speed above, quality below, one pair a swept setting."""
    layout: Figure = {"grid": {"rows": 2, "columns": max(len(names), 1), "pattern": "independent"}}
    layout |= {"showlegend": False, "height": 560}
    marker = {"color": "--front", "size": 5, "opacity": 0.65}
    common = {"text": _names(picture.points), "hovertemplate": "%{text}<br>%{y:.4f}<extra></extra>"}
    traces = []
    for row, (column, title) in enumerate((("x", picture.speedup.replace("_", " ")), ("y", "quality"))):
        first = _axis(row * len(names))
        for place, name in enumerate(names):
            number = _axis(row * len(names) + place)
            values = setting_values(picture.points, name)
            across = _across(values)
            axes = {"xaxis": f"x{number}", "yaxis": f"y{number}"}
            traces.append(
                {**across, **common, **axes, "y": picture.points[column].tolist(), "marker": marker}
            )
            layout[f"xaxis{number}"] = {"title": {"text": escape(name.replace("_", " ")) if row else ""}}
            if across["type"] == "box":
                layout[f"xaxis{number}"] |= {"type": "category", "categoryarray": _ordered(values)}
            shared = (
                {"matches": f"y{first}", "showticklabels": False} if place else {"title": {"text": title}}
            )
            layout[f"yaxis{number}"] = {**shared, **({"range": list(picture.frame)} if row else {})}
    return {"data": traces, "layout": layout}


def _curves(picture: FrontPicture) -> list[Figure]:
    """Return plain training at a scaled learning rate as a curve, and each other control as one."""
    found = []
    for arm, name in NAMES.items():
        rows = ladder(picture, arm)
        if len(rows) <= (arm == LADDER_ARM):
            continue
        colour = "--matched" if arm == LADDER_ARM else "--muted"
        trace = _trace(name, rows["x"].tolist(), rows["y"].tolist(), colour, "diamond", 7)
        trace |= {"mode": "lines+markers", "line": {"color": colour, "width": 1.6, "dash": "dash"}}
        trace["hovertemplate"] = f"{name}<br>speedup %{{x:.3f}}, quality %{{y:.4f}}<extra></extra>"
        found.append(trace)
    return found


def _axis(place: int) -> str:
    return str(place + 1) if place else ""  # Plotly calls its first axis plain "x"


def swept_settings(trials: pd.DataFrame, manifest: Mapping[str, Any]) -> list[str]:
    """Return the settings that take more than one value: those of the sweep's space, else the usual four."""
    space = (manifest.get("spec") or {}).get("space") or {}
    return [name for name in space or SETTINGS if setting_values(trials, name).nunique() > 1]


def setting_values(trials: pd.DataFrame, name: str) -> pd.Series[Any]:
    """Return a setting's value in each trial, from its column or from the trial's whole configuration."""
    if name in SETTINGS:
        return trials[name]
    return trials["config"].map(lambda text: _as_axis(settings_in(text).get(name)))


def _as_axis(value: Any) -> Any:
    """Return a setting as an axis can hold it: a whole number that a float would round is a word."""
    if isinstance(value, (list, dict)) or (isinstance(value, int) and abs(value) > EXACT_AS_FLOAT):
        return json.dumps(value)
    return value


def _dominated(picture: FrontPicture) -> Figure:
    """Return the hypervolume itself."""
    corners = picture.dominated
    return {
        "type": "scatter",
        "mode": "lines",
        "name": "hypervolume",
        "x": [x for x, _ in corners],
        "y": [y for _, y in corners],
        "fill": "toself",
        "fillcolor": "--front-soft",
        "line": {"width": 0},
        "hoverinfo": "skip",
    }


def _intervals(picture: FrontPicture) -> Figure:
    """Return the front's 95 % intervals as error bars."""
    return {} if picture.seeds == 1 else _bars(picture.front, "--front-bar")


def _bars(rows: pd.DataFrame, colour: str) -> Figure:
    bars = {}
    for axis in "xy":
        below, above = error_bars(rows, axis)
        bars[f"error_{axis}"] = {
            "type": "data",
            "symmetric": False,
            "thickness": 1.2,
            "width": 3,
            "color": colour,
            "array": above.tolist(),
            "arrayminus": below.tolist(),
        }
    return bars


def _threads(front: pd.DataFrame) -> Figure:
    """Return thin lines from each front point to its truncated control: what prediction won or lost."""
    pairs = front[["x", "y", "truncated"]].dropna().itertuples(index=False)
    xs: list[float | None] = []
    ys: list[float | None] = []
    for x, y, truncated in pairs:
        xs, ys = [*xs, x, x, None], [*ys, y, truncated, None]
    line = {"color": "--truncated", "width": 1.2, "dash": "dot"}
    shape = {"type": "scatter", "mode": "lines", "x": xs, "y": ys, "line": line}
    return {**shape, "hoverinfo": "skip", "showlegend": False}


def _markers(
    rows: pd.DataFrame,
    column: str,
    name: str,
    colour: str,
    symbol: str,
    size: int,
    line: float = 0,
    *,
    ring: bool = False,
) -> Figure:
    shown = rows[rows[column].notna()]
    trace = _trace(
        f"{name} ({len(shown)})", shown["x"].tolist(), shown[column].tolist(), colour, symbol, size
    )
    trace["text"] = _hover(shown) if column == "y" else [f"{name} of<br>{text}" for text in _names(shown)]
    trace["hovertemplate"] = "%{text}<br>speedup %{x:.3f}, quality %{y:.4f}<extra></extra>"
    trace["marker"]["line"] = {"width": 2, "color": "--card"} if ring else {"width": line, "color": colour}
    return trace


def _trace(name: str, xs: list[float], ys: list[float], colour: str, symbol: str, size: int) -> Figure:
    marker = {"color": colour, "symbol": symbol, "size": size}
    return {"type": "scatter", "mode": "markers", "name": name, "x": xs, "y": ys, "marker": marker}


def _names(rows: pd.DataFrame) -> list[str]:
    return [escape(str(trial_id)) for trial_id in rows["trial_id"]]


def _hover(rows: pd.DataFrame) -> list[str]:
    """Return for each row its id, its seeds, its settings and how it stands against the controls."""
    controls = {
        "quality_vs_lr_matched": "vs learning rate × m",
        "quality_vs_truncated": "vs truncated",
        "quality_vs_frozen": "vs frozen",
    }
    intervals = {"x": ("95 % of speedup", 3), "y": ("95 % of quality", 4)} if "x_low" in rows else {}
    texts = []
    ends = [f"{axis}_{end}" for axis in intervals for end in ("low", "high")]
    for row in rows[["trial_id", "seed", *SETTINGS, *controls, *ends]].to_dict("records"):
        lines = [f"<b>{escape(str(row['trial_id']))}</b>  seed {escape(str(row['seed']))}"]
        lines += [f"{name.replace('_', ' ')} {row[name]:g}" for name in SETTINGS if pd.notna(row[name])]
        lines += [f"{label} {row[name]:.4f}" for name, label in controls.items() if pd.notna(row[name])]
        lines += [
            f"{label} {row[f'{axis}_low']:.{digits}f} to {row[f'{axis}_high']:.{digits}f}"
            for axis, (label, digits) in intervals.items()
        ]
        texts.append("<br>".join(lines))
    return texts


def _across(values: pd.Series[Any]) -> Figure:
    if values.nunique() > _MANY_VALUES and pd.api.types.is_numeric_dtype(values):
        return {"type": "scatter", "mode": "markers", "x": values.astype("float64").tolist()}
    box = {"type": "box", "boxpoints": "all", "jitter": 0.5, "pointpos": 0, "fillcolor": "--clear"}
    return {**box, "x": [_shown(value) for value in values], "line": {"width": 1.2, "color": "--muted"}}


def _ordered(values: pd.Series[Any]) -> list[str]:
    present = list(dict.fromkeys(values.dropna()))
    try:
        return [_shown(value) for value in sorted(present)]
    except TypeError:  # numbers and words in one setting
        return [_shown(value) for value in present]


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else escape(str(value))


def _labels(picture: FrontPicture) -> list[Figure]:
    rows = picture.labelled
    names = zip(rows["x"], rows["y"], rows["trial_id"], strict=True)
    arrow = {"showarrow": False, "xanchor": "left", "yanchor": "bottom", "xshift": 6, "yshift": 4}
    arrow |= {"bgcolor": "--card", "opacity": 0.9, "borderpad": 1}
    font = {"size": 11, "color": "--front"}
    return [{"x": x, "y": y, "text": escape(name), "font": font, **arrow} for x, y, name in names]


def _empty(points: pd.DataFrame) -> list[Figure]:
    if len(points):
        return []
    place = {"xref": "paper", "yref": "paper", "x": 0.5, "y": 0.5, "showarrow": False}
    return [{"text": "no configuration is done", "font": {"size": 15, "color": "--muted"}, **place}]
