"""From the journal's events to runs: what is known of each trial and seed, as plain values."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from hybrid_sweep.errors import UserError
from hybrid_sweep.store.columns import SETTINGS

Event = Mapping[str, Any]
Run = tuple[str, int]
"""Trial id and seed."""

INTERRUPTED = "interrupted"  # the reason of a run that was stopped to go on at resume
_OLD_NAMES = {"val_accuracy": "val_metric", "reference_val_accuracy": "reference_val_metric"}
"""Columns as journals of results format 4 and before call them."""
_OF_A_RUN = ("started", "lost", INTERRUPTED, "retried", "finished")


def run_rows(events: Iterable[Event], numbers: Collection[str] = ()) -> dict[Run, dict[str, Any]]:
    """Return what is known of each run, in the order they started: its columns, where they have a value.

    A run without an end is "running", also after its worker was lost; one started again, or a failed one
    that is opened again, starts from step 0. A failed run keeps its settings and no numbers; a diverged one
    has quality 0; one that was stopped keeps what it had reached.

    Beside the columns of the table each row holds `began` and `ended` (the stamps of the journal, ended
    empty while it runs), and how often it was `lost` and `retried`. Its `config` is a mapping where the
    result has not brought its text.

    Args:
        events: of a journal.
        numbers: what of each result is kept, where not all of it is of use: it is most of a row.

    Raises:
        UserError: an event lacks what its kind must have.
    """
    rows: dict[Run, dict[str, Any]] = {}
    chosen: dict[str, dict[str, Any]] = {}
    for event in events:
        kind = event["event"]
        if kind == "asked":
            trial_id = need(event, "trial_id", str)
            chosen[trial_id] = {"number": event.get("number"), "source": event.get("source")}
        elif kind in _OF_A_RUN:
            key = run_of(event)
            rows[key] = _after(event, kind, rows.get(key) or _new(key), chosen, numbers)
    return rows


def _after(
    event: Event, kind: str, row: dict[str, Any], chosen: Mapping[str, Any], numbers: Collection[str]
) -> dict[str, Any]:
    """Return the row of a run after one of its events."""
    if kind == "started":
        config = need(event, "config", Mapping)
        settings = {name: config.get(name) for name in SETTINGS}
        settings |= {"config": config, **chosen.get(row["trial_id"], {})}
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
        row["state"], row["reason"] = need(event, "state", str), event.get("reason") or ""
    row["ended"] = event.get("at") or ""
    if row["state"] != "failed":
        result = need(event, "result", Mapping)
        if numbers:
            row |= {name: value for name in numbers if (value := result.get(name)) is not None}
        else:
            own = ("trial_id", "seed")
            row |= {name: value for name, value in result.items() if value is not None and name not in own}
            for old in _OLD_NAMES.keys() & result.keys() & row.keys():
                row[_OLD_NAMES[old]] = row.pop(old)
    if row["state"] == "diverged":
        row["quality"] = 0.0
    return row


def _new(key: Run, *, lost: int = 0, retried: int = 0) -> dict[str, Any]:
    times = {"began": "", "ended": "", "lost": lost, "retried": retried}
    return {**identity(key), "state": "running", **times}


def identity(key: Run) -> dict[str, Any]:
    """Return the columns that say which run it is."""
    return {"trial_id": key[0], "seed": key[1]}


def run_of(event: Event) -> Run:
    """Return which run an event is of.

    Raises:
        UserError: the event does not say.
    """
    trial_id, seed = event.get("trial_id"), event.get("seed")
    if isinstance(trial_id, str) and isinstance(seed, int) and 0 <= seed < 2**63:
        return trial_id, seed
    need(event, "seed", int)
    need(event, "trial_id", str)
    raise UserError(f"the journal is corrupt: seed={seed} is not a seed; restore it from a copy")


def need(event: Event, name: str, kind: type) -> Any:
    """Return a field that an event must have.

    Raises:
        UserError: it is missing or of another type.
    """
    value = event.get(name)
    if not isinstance(value, kind):
        raise UserError(
            f"the journal is corrupt: a {event['event']!r} event has {name}={value!r}; restore it from a copy"
        )
    return value


def number(value: Any) -> float:
    """Return a value of a row as a number, not-a-number where it is none."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan
