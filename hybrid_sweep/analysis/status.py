"""How a sweep stands, from its journal alone: for the terminal, and as JSON for other programs."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, Literal

from hybrid_sweep.analysis.eta import clock_text, seconds_left
from hybrid_sweep.analysis.live_front import FrontPoint, LiveFront
from hybrid_sweep.analysis.objectives import MIN_QUALITY, hypervolume_reference, speedup_column
from hybrid_sweep.store.folder import SweepFolder
from hybrid_sweep.store.journal import Journal, plain
from hybrid_sweep.store.runs import INTERRUPTED, number, run_rows

STATES = ("done", "running", "unfinished", "diverged", "pruned", "failed")
_TAIL_BYTES = 65536  # of the journal, in which its last line surely ends


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepStatus:
    """A sweep at one moment. A run is one configuration with one seed, a point one with all its seeds.

    Attributes:
        name: of the sweep.
        sweep_id: from its manifest.
        state: "running" where its driver is alive, "finished" where every planned run has ended, else
            "interrupted": resume goes on.
        runs: how many runs are in each of `STATES`; "unfinished" has started and runs nowhere now.
        planned: runs in all, as far as they are known; None before the first.
        points: points that have ended.
        front: points on the front.
        hypervolume: what the front dominates.
        slope: growth of the hypervolume a point, over the last fifth of the points, at least ten.
        speedup: column that the front is made of.
        fastest: fastest point of the front with a quality of at least `MIN_QUALITY`.
        best: point of the best quality.
        seconds_a_trial: median wall clock of a run, from its last start to its end.
        seconds_left: estimate, while it runs.
        lost: how often a run's worker was lost.
        retried: how often a failed run was opened again.
        last_event_seconds: age of the last line of the journal.
    """

    name: str
    sweep_id: str
    state: Literal["running", "finished", "interrupted"]
    runs: dict[str, int]
    planned: int | None
    points: int
    front: int
    hypervolume: float
    slope: float | None
    speedup: str
    fastest: FrontPoint | None
    best: FrontPoint | None
    seconds_a_trial: float | None
    seconds_left: float | None
    lost: int
    retried: int
    last_event_seconds: float | None

    @property
    def ended(self) -> int:
        """How many runs have ended."""
        return sum(self.runs[state] for state in STATES if state not in ("running", "unfinished"))

    def to_dict(self) -> dict[str, Any]:
        """Return the status as plain data that JSON can hold."""
        values: dict[str, Any] = plain(asdict(self))
        return values


def sweep_status(folder: SweepFolder, *, alive: bool, now: datetime | None = None) -> SweepStatus:
    """Read how a sweep stands.

    Args:
        folder: its results.
        alive: whether its driver runs.
        now: for ages and the time left; the present by default.

    Raises:
        UserError: the journal or the manifest is corrupt.
    """
    moment, manifest = now or datetime.now(UTC), folder.manifest
    spec = manifest.get("spec") or {}
    speedup, repeats = speedup_column(manifest), int(spec.get("repeats") or 1)
    rows, asked = _read(folder.journal.path)
    started = [row for row in rows if row["state"] == "running"]
    ended = [row for row in rows if row["state"] != "running" and row["reason"] != INTERRUPTED]
    counts = Counter(row["state"] for row in ended)
    counts["running" if alive else "unfinished"] += len(started)
    counts["unfinished"] += len(rows) - len(ended) - len(started)
    ended.sort(key=lambda row: str(row["ended"]))
    front = _front(ended, speedup, manifest)
    good = [point for point in front.points if point.quality >= MIN_QUALITY]
    durations = [took for row in ended if (took := _seconds(row["began"], row["ended"])) is not None]
    each = median(durations) if durations else None
    budget = _budget(manifest)
    points = asked if budget is None else budget
    beside = int(manifest.get("controls") or 0)
    planned = (points + beside) * repeats if points else None
    left = None
    if alive and planned and each is not None:
        ages = [_seconds(row["began"], moment.isoformat()) or 0.0 for row in started]
        waiting = planned - _skipped(rows, repeats) - len(ended) - len(started)
        left = seconds_left(each, ages, waiting, len(started))
    enough = front.ended >= points or _is_flat(ended, manifest)
    enough = enough and sum(bool(row.get("arm")) for row in ended) >= beside * repeats
    over = enough and front.ended >= asked and (asked or budget is not None) and not counts["unfinished"]
    return SweepStatus(
        name=str(spec.get("name") or folder.path.resolve().name),
        sweep_id=str(manifest.get("sweep_id") or ""),
        state="running" if alive else "finished" if over else "interrupted",
        runs={state: counts[state] for state in STATES},
        planned=planned,
        points=front.ended,
        front=len(front.points),
        hypervolume=front.hypervolume,
        slope=front.slope,
        speedup=speedup,
        fastest=good[0] if good else None,
        best=front.points[-1] if front.points else None,
        seconds_a_trial=each,
        seconds_left=left,
        lost=sum(row["lost"] for row in rows),
        retried=sum(row["retried"] for row in rows),
        last_event_seconds=_seconds(_last_stamp(folder.journal.path), moment.isoformat()),
    )


def status_lines(status: SweepStatus) -> list[str]:
    """Return the status for a terminal, a fact a line."""
    counts = ", ".join(f"{count} {state}" for state, count in status.runs.items() if count)
    each, left, age = status.seconds_a_trial, status.seconds_left, status.last_event_seconds
    of = "" if status.planned is None else f" of {status.planned}"
    slope = "" if status.slope is None else f", {status.slope:+.4f} a point of late"
    lines = {
        "runs": f"{status.ended}{of} ended" + (f": {counts}" if counts else ""),
        "front": f"{status.front} of {status.points} points, hypervolume {status.hypervolume:.4f}{slope}",
        f"fastest at quality ≥ {MIN_QUALITY}": _point(status.fastest),
        "best quality": _point(status.best),
        "pace": ("" if each is None else f"{each:.1f} s a trial")
        + ("" if left is None else f", about {clock_text(left)} left"),
        "trouble": _trouble(status),
        "last event": "" if age is None else f"{clock_text(age)} ago",
    }
    goes_on = "resume it" if status.sweep_id else "it has no manifest, so run it again"
    word = f"interrupted: {goes_on}" if status.state == "interrupted" else status.state
    width = max(map(len, lines))
    head = f"{status.name}: {word}" + (f" (sweep {status.sweep_id})" if status.sweep_id else "")
    return [head, *(f"  {name:<{width}}  {text}" for name, text in lines.items() if text)]


def _point(point: FrontPoint | None) -> str:
    return f"{point.trial_id} {point.speedup:.2f}× quality {point.quality:.3f}" if point else "none yet"


def _trouble(status: SweepStatus) -> str:
    lost = f"workers lost under a run: {status.lost}" if status.lost else ""
    retried = f"failed runs opened again: {status.retried}" if status.retried else ""
    return ", ".join(filter(None, (lost, retried)))


def _read(journal: Path) -> tuple[list[dict[str, Any]], int]:
    """Return the runs of a journal and how many points were asked."""
    asked = set()

    def noticed() -> Iterator[dict[str, Any]]:
        for event in Journal.events(journal, skip=("reported", "known")):
            if event["event"] == "asked":
                asked.add(event.get("trial_id"))
            yield event

    return list(run_rows(noticed(), ("speedup", "speedup_counted", "quality")).values()), len(asked)


def _front(ended: list[dict[str, Any]], speedup: str, manifest: Mapping[str, Any]) -> LiveFront:
    repeats = int((manifest.get("spec") or {}).get("repeats") or 1)
    front = LiveFront(hypervolume_reference(manifest), repeats)
    for row in ended:
        if row.get("arm"):
            continue
        front.add(row["trial_id"], row["state"], number(row.get(speedup)), number(row.get("quality")))
    return front


def _is_flat(ended: list[dict[str, Any]], manifest: Mapping[str, Any]) -> bool:
    """Return whether `stop_when_flat` has ended the sweep: as the study counts it, and without failures."""
    patience = (manifest.get("spec") or {}).get("stop_when_flat")
    if not patience:
        return False
    told = _front([row for row in ended if row["state"] != "failed"], "speedup_counted", manifest)
    return told.ended >= patience and told.growth(patience) <= 0


def _skipped(rows: list[dict[str, Any]], repeats: int) -> int:
    """Return how many runs are never started because another seed of their point was pruned."""
    points = [row for row in rows if not row.get("arm")]
    started = Counter(row["trial_id"] for row in points)
    pruned = {row["trial_id"] for row in points if row["state"] == "pruned" and row["reason"] != INTERRUPTED}
    return sum(repeats - started[point] for point in pruned)


def _budget(manifest: Mapping[str, Any]) -> int | None:
    """Return how many points there will be: the budget on record, else what the sweep says."""
    spec = manifest.get("spec") or {}
    points = manifest.get("budget", spec.get("trials"))
    axes = (spec.get("space") or {}).values()
    is_grid = bool(spec) and spec.get("sampler", "grid") == "grid"
    if points is None and is_grid and all(isinstance(axis, list) for axis in axes):
        points = math.prod(map(len, axes))
    return None if points is None else int(points)


def _seconds(began: str, ended: str) -> float | None:
    """Return the seconds between two stamps of the journal, None where one is missing."""
    try:
        return (datetime.fromisoformat(ended) - datetime.fromisoformat(began)).total_seconds()
    except (TypeError, ValueError):
        return None


def _last_stamp(path: Path) -> str:
    """Return when the last whole line of a journal was written, whatever its event."""
    try:
        with path.open("rb") as file:
            file.seek(max(path.stat().st_size - _TAIL_BYTES, 0))
            lines = file.read().splitlines()
    except FileNotFoundError:
        return ""
    for line in reversed(lines):
        try:
            return str(json.loads(line)["at"])
        except (KeyError, TypeError, ValueError, RecursionError):  # torn, or cut by the window
            continue
    return ""
