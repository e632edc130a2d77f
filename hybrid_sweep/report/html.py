"""report.html: one file that holds a whole sweep, opens anywhere, and asks no network for anything."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from hybrid_sweep.analysis.checklist import Item, check, recommendation
from hybrid_sweep.analysis.comparison import Confirmation, ratio
from hybrid_sweep.analysis.intervals import shown
from hybrid_sweep.analysis.objectives import MIN_QUALITY
from hybrid_sweep.analysis.seed_file import claims_table
from hybrid_sweep.analysis.summary import analyze
from hybrid_sweep.analysis.table import hybrid_runs
from hybrid_sweep.analysis.verdict import UNCONFIRMED, Verdict
from hybrid_sweep.credentials import harmless
from hybrid_sweep.errors import EXACT_AS_FLOAT
from hybrid_sweep.report.front_data import FrontPicture
from hybrid_sweep.report.notes import caveats, same_behaviour
from hybrid_sweep.report.plotly_figures import front_figure, settings_figure, swept_settings
from hybrid_sweep.report.reliability import constant_brier, reliability, skills
from hybrid_sweep.store.columns import TRIAL_COLUMNS
from hybrid_sweep.store.journal import plain

_MOST_CHECKED = 100  # front points with a checklist of their own
_STATES = ("done", "running", "diverged", "pruned", "failed")
_SHOWN_FIRST = (
    *("trial_id", "seed", "arm", "state", "speedup", "speedup_counted", "quality", "quality_vs_lr_matched"),
    *("quality_vs_truncated", "quality_vs_frozen", "backward_reduction_pct", "realised_horizon_mean"),
    *("micro_corrections", "behaviour", "reason"),
)


def render_report(
    trials: pd.DataFrame,
    picture: FrontPicture,
    manifest: Mapping[str, Any],
    title: str,
    *,
    min_quality: float = MIN_QUALITY,
    verdict: Verdict | None = None,
    confirmation: Confirmation | None = None,
) -> str:
    """Return the report of a sweep as one HTML page; every text of the user's is escaped."""
    from plotly.offline import get_plotlyjs  # only the report needs it

    runs, trials = trials, hybrid_runs(trials)
    recommended = verdict.recommendation if verdict else UNCONFIRMED
    swept = swept_settings(trials, manifest) if len(picture.points) else []
    environment = Environment(
        loader=PackageLoader("hybrid_sweep.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("report.html.j2")
    table = reliability(trials, picture.best) if picture.best else []
    return page.render(
        title=title,
        headline=[
            line.split(": ", 1)
            for line in analyze(runs, picture.speedup, min_quality, recommended, picture.quality)
        ],
        min_quality=min_quality,
        counts=_counts(trials),
        configurations=trials["trial_id"].nunique(),
        notes=caveats(trials, picture),
        facts=list(_facts(manifest)),
        picture=picture,
        swept=swept,
        checks=list(_checks(picture, trials)),
        reliability=table,
        constant_brier=constant_brier(table),
        skills=skills(trials, picture.best) if picture.best else [],
        brier=trials.loc[trials["trial_id"] == picture.best, "brier"].mean(),
        verdict=verdict,
        confirmed=list(_compared(confirmation)) if confirmation else [],
        claims=claims_table(trials, picture.speedup).to_dict("records"),
        columns=TRIAL_COLUMNS,
        data=plain(
            {
                "front": front_figure(picture),
                "settings": settings_figure(picture, swept) if swept else None,
                "table": _table(runs, picture),
            }
        ),
        plotly=get_plotlyjs(),
    )


def _counts(trials: pd.DataFrame) -> list[tuple[str, int]]:
    counts = Counter(trials["state"])
    return [(state, counts[state]) for state in _STATES if counts[state] or state == "done"]


def _checks(picture: FrontPicture, trials: pd.DataFrame) -> Iterator[tuple[str, list[Item], str, list[str]]]:
    """Yield a front point's id, its checklist, the recommendation, and with several seeds its means."""
    for _, row in picture.best_first.head(_MOST_CHECKED).iterrows():
        items = check(row, trials, speedup=picture.speedup)
        means = [shown(row, picture.speedup, 3), shown(row, "quality", 4)] if picture.seeds > 1 else []
        yield str(row["trial_id"]), items, recommendation(items), means


def _compared(confirmation: Confirmation) -> Iterator[tuple[str, str, list[str]]]:
    """Yield a confirmed point's id, a control in words, and what the comparison gave."""
    for point in confirmation.points:
        for row in confirmation.rows(point).values():
            names = ("speedup_to_target", "speedup_whole_run", "quality", "equal_time_quality")
            ratios = [str(ratio(row, name)) for name in names]
            yield point, str(row["what"]), ratios


def _facts(manifest: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what was measured where, in the order of interest, from whatever the manifest holds."""
    spec = manifest.get("spec") or {}
    workload = spec.get("workload")
    if isinstance(workload, Mapping):
        workload = ", ".join([str(workload.get("name", "")), *_pairs(harmless(workload), leave_out="name")])
    known = {
        "workload": workload,
        "steps": spec.get("steps"),
        "seeds": manifest.get("seeds"),
        "timing": spec.get("timing"),
        "torch.compile": spec.get("compile"),
        "packing": (manifest.get("pack") or {}).get("why"),
        "hardware": manifest.get("hardware"),
        "versions": manifest.get("versions"),
        "git": manifest.get("git"),
        "unit costs (seconds)": manifest.get("unit_costs"),
        "η·λ_max along plain training": _curvature(manifest.get("curvature") or {}),
        "tuned controls": _tuning(spec, manifest.get("budget")),
        "points masked as unstable": manifest.get("masked"),
        "created": manifest.get("created"),
        "sweep": manifest.get("sweep_id"),
    }
    for name, value in known.items():
        if isinstance(value, Mapping):
            value = ", ".join(_pairs(value))
        elif isinstance(value, (list, tuple)):
            value = ", ".join(str(part) for part in value)
        if value not in (None, ""):
            yield name, str(value)


def _tuning(spec: Mapping[str, Any], points: int | None) -> str:
    """Return, where tuned controls have fewer tries than the sweep, that they have."""
    tries = spec.get("tuning_trials")
    if spec.get("controls") != "full" or not (tries and points) or tries >= points:
        return ""
    return f"chosen from {tries} settings, the hybrid from {points}: tuning_trials capped them"


def _curvature(measured: Mapping[str, Any]) -> str:
    """Return the largest learning rate × curvature with the step of each, or why there is none."""
    if why_not := measured.get("why_not"):
        return f"not measured: {why_not}"
    at = zip(measured.get("eta_lambda", ()), measured.get("steps", ()), strict=True)
    return ", ".join(f"{value:.3g} at step {step}" for value, step in at)


def _pairs(values: Mapping[str, Any], leave_out: str | None = None) -> list[str]:
    return [
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in values.items()
        if value not in (None, "") and name != leave_out
    ]


def _table(trials: pd.DataFrame, picture: FrontPicture) -> dict[str, Any]:
    """Return the table of trials for the page: columns, rows, which rows are on the front, and twins."""
    columns = [column for column in TRIAL_COLUMNS if column.name not in ("reason", "reliability", "config")]
    columns += [column for column in TRIAL_COLUMNS if column.name == "reason"]  # the widest at the end
    rows = trials[[column.name for column in columns]]
    seeds_as_text = bool((rows["seed"] > EXACT_AS_FLOAT).any())
    if seeds_as_text:
        rows = rows.astype({"seed": "str"})
    return {
        "columns": [
            {
                "name": column.name,
                "text": column.kind == "text" or (column.name == "seed" and seeds_as_text),
                "digits": column.digits,
                "meaning": column.meaning,
                "first": column.name in _SHOWN_FIRST and _tells(rows[column.name]),
            }
            for column in columns
        ],
        "rows": json.loads(rows.to_json(orient="values", double_precision=8)),
        "front": trials["trial_id"].isin(picture.front["trial_id"]).tolist(),
        "twins": same_behaviour(trials).astype("int64").tolist(),
    }


def _tells(values: pd.Series[Any]) -> bool:
    """Return whether a column is worth a place at first sight: not empty, nor a seed that all share."""
    filled = values[values.notna() & (values != "")]
    return len(filled) > 0 and (values.name != "seed" or filled.nunique() > 1)
