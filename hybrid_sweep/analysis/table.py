"""From the journal's events to tables: one row a trial and seed, one row a report."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from hybrid_sweep.analysis.columns import SETTINGS, TRIAL_COLUMNS
from hybrid_sweep.errors import UserError

Event = Mapping[str, Any]
Run = tuple[str, int]
"""Trial id and seed."""

INTERRUPTED = "interrupted"  # the reason of a run that was stopped to go on at resume
_OF_A_RUN = ("started", "lost", INTERRUPTED, "retried", "finished")
_STEP_TEXT = ("trial_id", "phase")


def trials_table(events: Iterable[Event]) -> pd.DataFrame:
    """Return one row a (trial, seed) in the order they started, with the columns of `TRIAL_COLUMNS`.

    Raises:
        UserError: an event lacks what its kind must have.
    """
    rows = run_rows(events).values()
    table = pd.DataFrame(list(rows), columns=[column.name for column in TRIAL_COLUMNS])
    for column in TRIAL_COLUMNS:
        if column.kind == "text":
            table[column.name] = table[column.name].astype("object").fillna("").astype("str")
        else:
            table[column.name] = _numbers(table[column.name], whole=column.kind == "count")
    return table


def hybrid_runs(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the sweep's own configurations: a table of trials without its controls."""
    return table[table["arm"] == ""] if "arm" in table else table


def run_rows(events: Iterable[Event]) -> dict[Run, dict[str, Any]]:
    """Return what is known of each run, in the order they started: its columns, where they have a value.

    A run without an end is "running", also after its worker was lost; one started again, or a failed one
    that is opened again, begins anew. A failed run keeps its settings and no numbers; a diverged one has
    quality 0; one that was stopped keeps what it had reached.

    Beside the columns of the table each row holds `began` and `ended` (the stamps of the journal, ended
    empty while it runs), and how often it was `lost` and `retried`.

    Raises:
        UserError: an event lacks what its kind must have.
    """
    rows: dict[Run, dict[str, Any]] = {}
    chosen: dict[str, dict[str, Any]] = {}
    for event in events:
        kind = event["event"]
        if kind == "asked":
            trial_id = _need(event, "trial_id", str)
            chosen[trial_id] = {"number": event.get("number"), "source": event.get("source")}
        elif kind in _OF_A_RUN:
            key = _key(event)
            rows[key] = _after(event, kind, rows.get(key) or _new(key), chosen)
    return rows


def _after(event: Event, kind: str, row: dict[str, Any], chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row of a run after one of its events."""
    if kind == "started":
        config = _need(event, "config", Mapping)
        settings = {name: config.get(name) for name in SETTINGS}
        settings |= {"config": json.dumps(config), **chosen.get(row["trial_id"], {})}
        fresh = _new((row["trial_id"], row["seed"]), lost=row["lost"], retried=row["retried"])
        settings["arm"] = event.get("arm") or ""
        return fresh | settings | {"attempts": event.get("attempt") or 1, "began": event.get("at") or ""}
    if kind == "lost":
        return row | {"lost": row["lost"] + 1}
    if kind == "retried":
        return row | {"state": "running", "reason": "", "ended": "", "retried": row["retried"] + 1}
    if kind == INTERRUPTED:
        row |= {"state": "pruned", "reason": INTERRUPTED}
    else:
        row |= {"state": _need(event, "state", str), "reason": event.get("reason") or ""}
    row["ended"] = event.get("at") or ""
    if row["state"] != "failed":
        result = _need(event, "result", Mapping)
        row |= {name: value for name, value in result.items() if value is not None}
    if row["state"] == "diverged":
        row["quality"] = 0.0
    return row


def _new(key: Run, *, lost: int = 0, retried: int = 0) -> dict[str, Any]:
    times = {"began": "", "ended": "", "lost": lost, "retried": retried}
    return {**_identity(key), "state": "running", **times}


def steps_table(events: Iterable[Event]) -> pd.DataFrame:
    """Return one row a report: trial_id, seed, step, phase, then whatever the reports hold.

    Where a trial ran again, its report at a step replaces everything an earlier attempt reported at that
    step or later, so that each trial's steps only ever increase.

    Raises:
        UserError: an event lacks what its kind must have.
    """
    rows = [
        {**_identity(_key(event)), **_need(event, "report", Mapping)}
        for event in events
        if event["event"] == "reported"
    ]
    table = pd.DataFrame(rows)
    table = table.reindex(columns=list(dict.fromkeys(["trial_id", "seed", "step", "phase", *table.columns])))
    for name in table.columns:
        if name not in _STEP_TEXT:
            table[name] = _numbers_or_text(table[name], whole=name in ("seed", "step"))
    return table[~_superseded(table)].reset_index(drop=True)


def _superseded(table: pd.DataFrame) -> pd.Series[bool]:
    """Mark the reports at or after a step that a later report of the same trial came back to."""
    trial = [table["trial_id"], table["seed"]]
    step = table["step"].astype("float64")
    lowest_from_here = step[::-1].groupby([key[::-1] for key in trial], sort=False).cummin()[::-1]
    lowest_after = lowest_from_here.groupby(trial, sort=False).shift(-1)
    return step >= lowest_after


def _numbers(values: pd.Series[Any], *, whole: bool) -> pd.Series[Any]:
    numbers = pd.to_numeric(values, errors="coerce").astype("float64")
    if whole and (numbers.isna() | (numbers % 1 == 0)).all():
        return numbers.astype("Int64")
    return numbers


def _numbers_or_text(values: pd.Series[Any], *, whole: bool) -> pd.Series[Any]:
    numbers = _numbers(values, whole=whole)
    return numbers if numbers.notna().sum() == values.notna().sum() else values.map(str, na_action="ignore")


def _identity(key: Run) -> dict[str, Any]:
    return {"trial_id": key[0], "seed": key[1]}


def _key(event: Event) -> Run:
    seed = _need(event, "seed", int)
    if not 0 <= seed < 2**63:
        raise UserError(f"the journal is corrupt: seed={seed} is not a seed; restore it from a copy")
    return _need(event, "trial_id", str), seed


def _need(event: Event, name: str, kind: type) -> Any:
    value = event.get(name)
    if not isinstance(value, kind):
        raise UserError(
            f"the journal is corrupt: a {event['event']!r} event has {name}={value!r}; restore it from a copy"
        )
    return value
