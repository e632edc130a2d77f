"""What a running sweep tells those who watch it: values, in the order in which they happen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class SweepStarted:
    """`total` runs (a run is one trial with one seed), at most `slots` at once, results in `folder`.

    `done` of them had ended before the sweep was resumed.
    """

    total: int
    folder: Path
    slots: int
    done: int = 0


@dataclass(frozen=True, slots=True)
class SlotsChanged:
    """Nodes came or went: `slots` runs fit at once."""

    slots: int


@dataclass(frozen=True, slots=True)
class Note:
    """One sentence for the reader: what is being prepared, what was retried."""

    text: str


@dataclass(frozen=True, slots=True)
class Preparing:
    """A second of waiting for what the trials need: `what` is prepared, and how far each is, if known."""

    what: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Waiting:
    """A second in which no run reported anything."""


@dataclass(frozen=True, slots=True)
class TrialStarted:
    """A run began."""

    trial_id: str
    seed: int


@dataclass(frozen=True, slots=True)
class TrialReported:
    """A run ended a cycle; `report` is the journal's."""

    trial_id: str
    seed: int
    report: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TrialLost:
    """A run's worker died; it starts again in `again_in_seconds`."""

    trial_id: str
    seed: int
    why: str
    again_in_seconds: float


@dataclass(frozen=True, slots=True)
class TrialFinished:
    """A run ended as done, diverged, pruned or failed; `result` holds the columns of trials.csv.

    `arm` is "" for a point of the sweep, else the name of the control. `from_cache` says that it was not run
    now, since an earlier sweep had run it.
    """

    trial_id: str
    seed: int
    state: str
    reason: str
    result: Mapping[str, Any]
    arm: str = ""
    from_cache: bool = False


@dataclass(frozen=True, slots=True)
class SweepEnded:
    """No run is left; `counts` is how many ended in each state."""

    counts: Mapping[str, int]
    interrupted: bool


SweepEvent = (
    SweepStarted
    | SlotsChanged
    | Note
    | Preparing
    | Waiting
    | TrialStarted
    | TrialReported
    | TrialLost
    | TrialFinished
    | SweepEnded
)
OnEvent = Callable[[SweepEvent], None]
