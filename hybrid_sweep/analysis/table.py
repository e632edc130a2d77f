"""From the journal's events to tables: one row a trial and seed, one row a report."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from hybrid_sweep.errors import EXACT_AS_FLOAT, UserError, shown
from hybrid_sweep.store.columns import TRIAL_COLUMNS
from hybrid_sweep.store.folder import SweepFolder
from hybrid_sweep.store.journal import Journal
from hybrid_sweep.store.runs import Event, identity, need, number, run_of, run_rows

_STEP_TEXT = ("trial_id", "phase")


def read_trials(folder: SweepFolder) -> pd.DataFrame:
    """Return `trials_table` of a results folder.

    Raises:
        UserError: the journal is corrupt.
    """
    return trials_table(Journal.events(folder.journal.path, skip=("reported",)))


def trials_table(events: Iterable[Event]) -> pd.DataFrame:
    """Return one row a (trial, seed) in the order they started, with the columns of `TRIAL_COLUMNS`.

    Raises:
        UserError: an event lacks what its kind must have.
    """
    rows = list(run_rows(events).values())
    for row in rows:
        if isinstance(row.get("config"), Mapping):  # no result has brought its text
            row["config"] = json.dumps(row["config"])
        elif "\n" in (text := str(row.get("config") or "")):  # an older journal has it over many lines
            row["config"] = " ".join(text.split())
    table = pd.DataFrame(rows, columns=[column.name for column in TRIAL_COLUMNS])
    for column in TRIAL_COLUMNS:
        if column.kind == "text":
            table[column.name] = table[column.name].astype("object").fillna("").astype("str")
        else:
            table[column.name] = _numbers(table[column.name], whole=column.kind == "count")
    return table


def hybrid_runs(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the sweep's own configurations: a table of trials without its controls."""
    return table[table["arm"] == ""] if "arm" in table else table


def steps_table(events: Iterable[Event]) -> pd.DataFrame:
    """Return one row a report: trial_id, seed, step, phase, then whatever the reports hold.

    Where a trial ran again, its report at a step replaces everything an earlier attempt reported at that
    step or later, so that each trial's steps only ever increase.

    Raises:
        UserError: an event lacks what its kind must have.
    """
    rows = [{**identity(run_of(event)), **_report(event)} for event in events if event["event"] == "reported"]
    table = pd.DataFrame(rows)
    table = table.reindex(columns=list(dict.fromkeys(["trial_id", "seed", "step", "phase", *table.columns])))
    for name in table.columns:
        if name not in _STEP_TEXT:
            table[name] = _numbers_or_text(table[name], whole=name in ("seed", "step"))
    return table[~_superseded(table)].reset_index(drop=True)


def _report(event: Event) -> dict[str, Any]:
    """Return what was reported, whose step and phase are what they are to be."""
    report: dict[str, Any] = need(event, "report", dict)
    step, phase = report.get("step"), report.get("phase")
    if not (isinstance(step, int) and 0 <= step < 2**63 and (phase is None or isinstance(phase, str))):
        raise UserError(
            f"the journal is corrupt: a report has step={shown(step)} and phase={shown(phase)}; "
            "restore it from a copy"
        )
    return report


def _superseded(table: pd.DataFrame) -> pd.Series[bool]:
    """Mark the reports at or after a step that a later report of the same trial came back to."""
    trial = [table["trial_id"], table["seed"]]
    step = table["step"].astype("float64")
    lowest_from_here = step[::-1].groupby([key[::-1] for key in trial], sort=False).cummin()[::-1]
    lowest_after = lowest_from_here.groupby(trial, sort=False).shift(-1)
    return step >= lowest_after


def _numbers(values: pd.Series[Any], *, whole: bool) -> pd.Series[Any]:
    """Return numbers; whole ones, such as seeds, pass through no float, which would round them at 2^53."""
    if whole and pd.api.types.is_integer_dtype(values.dtype):
        return values.astype("Int64")
    try:
        numbers = pd.to_numeric(values, errors="coerce").astype("float64")
    except OverflowError:  # a whole number that is too large for any column
        numbers = values.map(number).astype("float64")
    if whole and (numbers.isna() | ((numbers % 1 == 0) & (numbers.abs() <= EXACT_AS_FLOAT))).all():
        return numbers.astype("Int64")
    return numbers


def _numbers_or_text(values: pd.Series[Any], *, whole: bool) -> pd.Series[Any]:
    """Return numbers where there is nothing else; an id such as "1e5" is a word, and stays one."""
    numeric = pd.api.types.is_numeric_dtype(values.dtype) or all(map(_is_number, values))
    return _numbers(values, whole=whole) if numeric else values.map(str, na_action="ignore")


def _is_number(value: Any) -> bool:
    """Return whether it is a number as a journal holds one: nothing, or an infinity as text, too."""
    return value is None or isinstance(value, int | float) or value in ("inf", "-inf")
