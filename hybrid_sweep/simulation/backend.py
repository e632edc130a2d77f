"""SimulatedBackend: runs on a virtual clock instead of a cluster, as recorded or as a test wants them."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from heapq import heappop, heappush
from itertools import count, pairwise
from math import inf, isfinite
from typing import Any

from hybrid_sweep.driver.backend import Finished, Key, Lost, Reported, Run, RunUpdate, Stopped

REACHED = ("speedup", "speedup_counted", "quality", "val_loss")  # of a report, in the result of a stopped run
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


class VirtualClock:
    """Seconds that pass only when told."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds

    def advance_to(self, seconds: float) -> None:
        """Let time pass; it never goes back."""
        self.seconds = max(self.seconds, seconds)

    def utc(self) -> datetime:
        """Return the time as a date, for `Journal(now=clock.utc)`: the same run leaves the same journal."""
        return _EPOCH + timedelta(seconds=self.seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """What a run takes beside its own seconds.

    Attributes:
        start_seconds: from `start` to its first work.
        report_seconds: what each report costs.
        checkpoint_seconds: between checkpoints, each with the first report after them; infinity makes none.
    """

    start_seconds: float = 0.0
    report_seconds: float = 0.0
    checkpoint_seconds: float = 30.0

    def __post_init__(self) -> None:
        """Refuse time that runs backwards."""
        finite = isfinite(self.start_seconds + self.report_seconds)
        if not (finite and min(self.start_seconds, self.report_seconds, self.checkpoint_seconds) >= 0):
            raise ValueError(f"{self} is not allowed: give delays that are finite and not below 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedRun:
    """What a run does from its first step on, if nothing disturbs it.

    Attributes:
        reports: seconds since its begin, and what it reports then, `step` at least; both increase.
        seconds: when it ends; None is with its last report.
        state: done, diverged or failed.
        reason: why.
        result: columns of trials.csv.
        traceback: of a failed run.
    """

    reports: tuple[tuple[float, Mapping[str, Any]], ...] = ()
    seconds: float | None = None
    state: str = "done"
    reason: str = ""
    result: Mapping[str, Any] = field(default_factory=dict)
    traceback: str = ""

    def __post_init__(self) -> None:
        """Refuse a run that goes back in time or in steps."""
        times = [0.0, *(seconds for seconds, _ in self.reports), self.end]
        if not all(isfinite(now) and before <= now for before, now in pairwise(times)):
            raise ValueError(f"seconds {times} are not allowed: give finite ones that never fall")
        steps = [report["step"] for _, report in self.reports]
        if any(now <= before for before, now in pairwise(steps)):
            raise ValueError(f"steps {steps} are not allowed: give each above the one before")

    @property
    def end(self) -> float:
        """Seconds from begin to end."""
        if self.seconds is not None:
            return self.seconds
        return self.reports[-1][0] if self.reports else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerDeath:
    """At second `at` the worker in a slot (from 0) dies; another takes its place at once."""

    at: float
    slot: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeLoss:
    """At second `at` the last of the slots go; they come back after `back_after` seconds, if at all.

    `preempted` says that the node was taken away, not broken.
    """

    at: float
    slots: int = 1
    back_after: float = inf
    preempted: bool = False


Fault = WorkerDeath | NodeLoss
Event = Callable[[], list[RunUpdate]]


@dataclass(slots=True, eq=False)
class _Live:
    """A run in a slot, which report comes next, and what was asked of it."""

    run: Run
    plan: SimulatedRun
    next: int
    checkpointed: float
    stopping: bool = False
    keep: bool = False


@dataclass(slots=True, eq=False)
class _Slot:
    """Room for one run, while its node is up."""

    up: bool = True
    live: _Live | None = None

    def clear(self) -> _Live | None:
        """Take the run out; what it still had on the clock is void."""
        live, self.live = self.live, None
        return live


class SimulatedBackend:
    """Implements `driver.backend.Backend` without a cluster: `wait` moves the clock, and nothing sleeps.

    A run that starts from a checkpoint goes on behind the step that the checkpoint holds.

    Args:
        outcome: what a run does, such as `RecordedRuns`.
        slots: how many runs fit at once, while no node is lost.
        clock: shared with others that count its seconds.
        timing: what runs take beside their own seconds.
        faults: what breaks, and when.
    """

    def __init__(
        self,
        outcome: Callable[[Run], SimulatedRun],
        slots: int,
        *,
        clock: VirtualClock | None = None,
        timing: Timing | None = None,
        faults: Iterable[Fault] = (),
    ) -> None:
        self.clock = clock or VirtualClock()
        self._outcome = outcome
        self._timing = timing or Timing()
        self._slots = [_Slot() for _ in range(slots)]
        self._events: list[tuple[float, int, Event]] = []
        self._order = count()
        for fault in faults:
            self.inject(fault)

    @property
    def slots(self) -> int:
        """How many runs fit at once now."""
        return sum(slot.up for slot in self._slots)

    @property
    def free(self) -> int:
        """How many runs can be started now."""
        return sum(slot.up and slot.live is None for slot in self._slots)

    def now(self) -> float:
        """Return the seconds of the virtual clock."""
        return self.clock.seconds

    def start(self, run: Run, checkpoint: bytes | None = None) -> None:
        """Start a run in the first free slot.

        Raises:
            RuntimeError: it runs already, no slot is free, or the checkpoint is another run's.
        """
        slot = next((slot for slot in self._slots if slot.up and slot.live is None), None)
        if slot is None or self._live(run.key):
            raise RuntimeError(f"{run.key} runs already, or no slot is free for it")
        plan = self._outcome(run)
        step = _step_of(checkpoint, run.key) if checkpoint is not None else 0
        first = bisect_right([report["step"] for _, report in plan.reports], step)
        slot.live = _Live(run, plan, first, checkpointed=self.now())
        done = plan.reports[first - 1][0] if first else 0.0
        self._schedule(slot, slot.live, done, self._timing.start_seconds)

    def stop(self, key: Key, *, keep: bool = False) -> None:
        """Have a run end where it would report next; not an error if it is over."""
        if live := self._live(key):
            live.stopping, live.keep = True, keep

    def kill(self, key: Key, why: str) -> None:
        """Have the worker under a run die now, for this reason; not an error if it is over."""
        for slot in self._slots:
            if slot.live and slot.live.run.key == key:
                slot.clear()
                self._at(self.now(), lambda: [Lost(key, why)])

    def wait(self, seconds: float) -> list[RunUpdate]:
        """Move the clock to the next event, at most by `seconds`; return what happened then.

        The list is empty where nothing happened, or where only slots came or went.
        """
        deadline = self.now() + seconds
        while self._events and self._events[0][0] <= deadline:
            at, slots = self._events[0][0], self.slots
            self.clock.advance_to(at)
            updates: list[RunUpdate] = []
            while self._events and self._events[0][0] <= at:
                updates += heappop(self._events)[2]()
            if updates or self.slots != slots:
                return updates
        self.clock.advance_to(deadline)
        return []

    def inject(self, fault: Fault) -> None:
        """Have something break at its second, or now where that is past."""
        if isinstance(fault, WorkerDeath):
            self._at(fault.at, partial(self._die, fault))
        else:
            self._at(fault.at, partial(self._leave, fault))

    def _at(self, seconds: float, event: Event) -> None:
        heappush(self._events, (seconds, next(self._order), event))

    def _live(self, key: Key) -> _Live | None:
        return next((slot.live for slot in self._slots if slot.live and slot.live.run.key == key), None)

    def _schedule(self, slot: _Slot, live: _Live, done: float, delay: float = 0.0) -> None:
        """Put the run's next report, or its end without one, on the clock."""
        reports = live.plan.reports
        if live.next < len(reports):
            at, delay = reports[live.next][0], delay + self._timing.report_seconds
        else:
            at = live.plan.end
        self._at(self.now() + at - done + delay, lambda: self._reach(slot, live))

    def _reach(self, slot: _Slot, live: _Live) -> list[RunUpdate]:
        """Let a run report, stop or end, whichever it has come to."""
        if slot.live is not live:
            return []
        key, plan, updates = live.run.key, live.plan, list[RunUpdate]()
        if live.next < len(plan.reports):
            done, report = plan.reports[live.next]
            live.next += 1
            goes_on = live.next < len(plan.reports) or done < plan.end
            if goes_on and live.stopping:
                slot.clear()
                return [Stopped(key, _reached(report), _checkpoint(key, report) if live.keep else None)]
            updates.append(Reported(key, report, self._due(live, report) if goes_on else None))
            if goes_on:
                self._schedule(slot, live, done)
                return updates
        slot.clear()
        return [*updates, Finished(key, plan.state, plan.reason, plan.result, plan.traceback)]

    def _due(self, live: _Live, report: Mapping[str, Any]) -> bytes | None:
        if self.now() - live.checkpointed < self._timing.checkpoint_seconds:
            return None
        live.checkpointed = self.now()
        return _checkpoint(live.run.key, report)

    def _die(self, fault: WorkerDeath) -> list[RunUpdate]:
        live = self._slots[fault.slot].clear()
        return [Lost(live.run.key, f"the worker in slot {fault.slot} died")] if live else []

    def _leave(self, fault: NodeLoss) -> list[RunUpdate]:
        up = [slot for slot in self._slots if slot.up]
        gone = up[max(len(up) - fault.slots, 0) :]
        for slot in gone:
            slot.up = False
        if fault.back_after < inf:
            self._at(fault.at + fault.back_after, lambda: _come_back(gone))
        why = "its node was taken away" if fault.preempted else "its node died"
        return [Lost(live.run.key, why, fault.preempted) for slot in gone if (live := slot.clear())]


def _reached(report: Mapping[str, Any]) -> dict[str, Any]:
    return {**{name: report[name] for name in REACHED if name in report}, "steps": report["step"]}


def _come_back(slots: list[_Slot]) -> list[RunUpdate]:
    for slot in slots:
        slot.up = True
    return []


def _checkpoint(key: Key, report: Mapping[str, Any]) -> bytes:
    return json.dumps({"key": key, "step": report["step"]}).encode()


def _step_of(checkpoint: bytes, key: Key) -> int:
    values = json.loads(checkpoint)
    if tuple(values["key"]) != key:
        raise RuntimeError(f"the checkpoint of {tuple(values['key'])} was given to {key}")
    return int(values["step"])
