"""Progress of a running sweep: a live display in a terminal, plain lines anywhere else."""

from __future__ import annotations

import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from hybrid_sweep.analysis import eta
from hybrid_sweep.analysis.live_front import FrontPoint, LiveFront
from hybrid_sweep.analysis.objectives import MIN_QUALITY
from hybrid_sweep.driver.backend import Key
from hybrid_sweep.driver.events import (
    Note,
    Preparing,
    SlotsChanged,
    SweepEnded,
    SweepEvent,
    SweepStarted,
    TrialFinished,
    TrialLost,
    TrialReported,
    TrialStarted,
    Waiting,
)
from hybrid_sweep.spec.sweep import SweepSpec
from hybrid_sweep.store.runs import INTERRUPTED
from hybrid_sweep.terminal import PlainConsole

LINE_EVERY_SECONDS = 3.0
SIGN_EVERY_SECONDS = 15.0
"""Of life, where there is nothing else to tell and no live display."""
ROWS_OF_FRONT = 5
ROWS_OF_RUNNING = 8
STATES = {"done": "green", "diverged": "yellow", "pruned": "blue", "failed": "red"}


@dataclass(slots=True)
class _Running:
    since: float
    report: Mapping[str, Any] = field(default_factory=dict)


class SweepProgressState:
    """What is known of a sweep so far, in memory that hardly grows with it. Time is handed in, never read.

    Args:
        speedup: the column that the front is made of.
        reference: corner of the hypervolume, `(speedup, quality)`.
        repeats: seeds a point.
    """

    def __init__(self, speedup: str, reference: tuple[float, float], repeats: int = 1) -> None:
        self.speedup = speedup
        self.slots = 1
        self.lost = 0
        self.counts: Counter[str] = Counter()
        self.running: dict[Key, _Running] = {}
        self.front = LiveFront(reference, repeats)
        self._repeats = repeats
        self._planned = 0
        self._skipped = 0
        self._timed = 0
        self._seconds = 0.0

    @property
    def total(self) -> int:
        """How many runs there will be, without those of a point that another of its seeds has pruned."""
        return self._planned - self._skipped

    @property
    def finished(self) -> int:
        """How many runs have ended, in whichever state."""
        return self.counts.total()

    @property
    def fastest(self) -> FrontPoint | None:
        """The fastest point of good quality."""
        return _fastest(self.front.points)

    @property
    def best(self) -> FrontPoint | None:
        """The point of the best quality."""
        return self.front.points[-1] if self.front.points else None

    @property
    def seconds_a_trial(self) -> float | None:
        """Mean seconds of the runs that were seen from start to end, or None before the first."""
        return self._seconds / self._timed if self._timed else None

    def seconds_left(self, now: float) -> float | None:
        """Estimate the time left, or None before the first run has ended."""
        each = self.seconds_a_trial
        unfinished = self.total - self.finished
        if each is None or unfinished <= 0:
            return None if unfinished > 0 else 0.0
        ages = [now - run.since for run in list(self.running.values())]
        return eta.seconds_left(each, ages, unfinished - len(ages), min(self.slots, unfinished))

    def apply(self, event: SweepEvent, now: float) -> None:
        """Take one event into account, `now` in seconds of any clock."""
        match event:
            case SweepStarted():
                self._planned, self.slots = event.total, max(event.slots, 1)
            case SlotsChanged():
                self.slots = max(event.slots, 1)
            case TrialStarted():
                self.running[event.trial_id, event.seed] = _Running(now)
            case TrialReported():
                self.running.setdefault((event.trial_id, event.seed), _Running(now)).report = event.report
            case TrialLost():
                self.running.pop((event.trial_id, event.seed), None)
                self.lost += 1
            case TrialFinished():
                self._finish(event, now)
            case SweepEnded():
                self.running.clear()
            case Note() | Preparing() | Waiting():
                pass

    def _finish(self, event: TrialFinished, now: float) -> None:
        started = self.running.pop((event.trial_id, event.seed), None)
        if started:
            self._timed += 1
            self._seconds += now - started.since
        self.counts[event.state] += 1
        if event.arm or event.reason == INTERRUPTED:  # no point, or one that goes on at resume
            return
        seeds_in = self.front.seeds_in(event.trial_id)
        if seeds_in == self._repeats:  # pruned before, while this one was under way
            self._skipped -= 1
        elif event.state == "pruned":
            self._skipped += self._repeats - seeds_in - 1
        speedup, quality = (_number(event.result.get(name)) for name in (self.speedup, "quality"))
        self.front.add(event.trial_id, event.state, speedup, quality)


class SweepProgress:
    """Shows the events of one sweep; hand it to `run_sweep` as `on_event` and use it in a `with`.

    Args:
        spec: the sweep that runs.
        console: where to write; standard output by default.
        live: whether to draw in place; by default where the console is a terminal.
        clock: seconds, for durations only.
    """

    def __init__(
        self,
        spec: SweepSpec,
        console: Console | None = None,
        *,
        live: bool | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.console = console or PlainConsole()
        self.tally = SweepProgressState(spec.speedup_column, spec.hypervolume_reference.pair, spec.repeats)
        self._name = spec.name
        self._repeats = spec.repeats
        self._started = False
        self._clock = clock
        self._since = clock()
        self._last_line = -math.inf
        self._printed = self._since
        self._preparing: tuple[str, ...] = ()
        drawn_in_place = self.console.is_interactive and sys.stdout.isatty() if live is None else live
        self._live = (
            Live(self, console=self.console, refresh_per_second=4, transient=True) if drawn_in_place else None
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None = None, *_: object) -> None:
        if self._live:
            self._live.stop()
        if kind is KeyboardInterrupt and not self._started:
            self._print("Interrupted before the first trial: nothing was written.", "yellow")

    def __call__(self, event: SweepEvent) -> None:
        """Take one event and show it."""
        now, slots = self._clock(), self.tally.slots
        self.tally.apply(event, now)
        match event:
            case SweepStarted():
                self._started, self._preparing = True, ()
                done = f", {event.done} of them ended before" if event.done else ""
                at_once = f"{event.total} runs{done}, {event.slots} at a time"
                self._print(f"{self._name}: {at_once}, results in {event.folder}")
                if self._live and not self._live.is_started:
                    self._live.start()
            case Preparing():
                self._prepares(event.what, now)
            case SlotsChanged() if event.slots != slots:
                self._print(f"{event.slots} at a time from now on", "dim")
            case Note():
                self._print(event.text, "dim")
            case TrialLost():
                again = f"tried again in {event.again_in_seconds:.0f} s"
                self._print(f"{self._label(event.trial_id, event.seed)} lost: {event.why}; {again}", "yellow")
            case TrialFinished() if not self._started:  # in an earlier session
                pass
            case TrialFinished(state="failed"):
                self._print(f"{self._label(event.trial_id, event.seed)} failed: {event.reason}", "red")
                self._line(now)
            case TrialFinished():
                self._line(now)
            case TrialReported() | Waiting() if now - self._printed >= SIGN_EVERY_SECONDS:
                self._line(now)
            case SweepEnded():
                self.__exit__()
                took = eta.clock_text(now - self._since)
                self._print(f"Took {took}, hypervolume {self.tally.front.hypervolume:.4f}.")

    def _prepares(self, what: tuple[str, ...], now: float) -> None:
        """Show what is being prepared: in place, or in a line now and then."""
        self._preparing = what
        if self._live:
            if not self._live.is_started:
                self._live.start()
        elif now - self._printed >= SIGN_EVERY_SECONDS:
            self._print(f"{'; '.join(what)} ({eta.clock_text(now - self._since)} so far)", "dim")

    def __rich__(self) -> RenderableType:
        tally, now = self.tally, self._clock()
        if self._preparing:
            so_far = Text(f"{eta.clock_text(now - self._since)} so far", "dim")
            return Group(*(Text(each, "dim") for each in self._preparing), so_far)
        head = Table.grid(padding=(0, 2))
        bar = ProgressBar(total=max(tally.total, 1), completed=tally.finished, width=36)
        head.add_row(Text(self._name, "bold"), bar, f"{tally.finished}/{tally.total}", *self._pace(now))
        counts = Text("  ").join(
            Text(f"{count} {state}", style if count else "dim") for state, count, style in self._states()
        )
        return Group("", head, counts, "", self._front(), self._hypervolume(), "", self._running(), "")

    def _print(self, text: str, style: str = "") -> None:
        self._printed = self._clock()
        self.console.print(Text(text, style), soft_wrap=True)

    def _line(self, now: float) -> None:
        """Print one plain line, unless there was one just now and more are to come."""
        tally = self.tally
        if self._live or (now - self._last_line < LINE_EVERY_SECONDS and tally.finished < tally.total):
            return
        self._last_line = now
        parts = [f"{tally.finished}/{tally.total}"]
        if not tally.finished:  # as long as no run has ended, each tells how far it is
            steps = ((self._label(*key), run.report.get("step", 0)) for key, run in tally.running.items())
            parts += [f"{label} at step {step}" for label, step in steps][:ROWS_OF_RUNNING]
        parts.append(", ".join(f"{count} {state}" for state, count, _ in self._states() if count))
        if tally.fastest:
            parts.append(f"fastest at quality >= {MIN_QUALITY}: {_result(tally.fastest)}")
        if tally.best:
            parts.append(f"best quality: {_result(tally.best)}")
        parts.append(self._hypervolume())
        self._print(" | ".join([*parts, *self._pace(now)]))

    def _states(self) -> list[tuple[str, int, str]]:
        """Return `(state, count, style)`; a pruned run is news, the other states are always shown."""
        counts = self.tally.counts
        ended = [(state, counts[state], style) for state, style in STATES.items()]
        shown = [row for row in ended if row[0] != "pruned" or row[1]]
        lost = [("lost and tried again", self.tally.lost, "yellow")] if self.tally.lost else []
        return [shown[0], ("running", len(self.tally.running), "cyan"), *shown[1:], *lost]

    def _pace(self, now: float) -> list[str]:
        each, left = self.tally.seconds_a_trial, self.tally.seconds_left(now)
        if each is None or left is None:
            return []
        if self.tally.finished >= self.tally.total:
            return [f"{each:.1f} s a trial"]
        return [f"{each:.1f} s a trial", f"{eta.clock_text(left)} left"]

    def _hypervolume(self) -> str:
        front = self.tally.front
        text = f"hypervolume {front.hypervolume:.4f}"
        if front.slope is None:
            return text
        return f"{text}, {front.slope:+.4f} a point over the last {front.window}"

    def _front(self) -> RenderableType:
        """Return the front around its fastest good point, with the best one as the last row."""
        points = self.tally.front.points
        fastest = _fastest(points)
        if not points:
            return Text("no point on the front yet", "dim")
        first = points.index(fastest) if fastest else len(points)
        first = max(min(first, len(points) - ROWS_OF_FRONT), 0)
        shown = [*points[first : first + ROWS_OF_FRONT - 1], points[-1]][: len(points)]
        means = f", means of {self._repeats} seeds" if self._repeats > 1 else ""
        rows = Table.grid(padding=(0, 2))
        rows.add_row(
            Text(f"front of {len(points)}{means}", "bold"), Text("speedup", "dim"), Text("quality", "dim")
        )
        for point in shown:
            says = ["best quality"] if point is points[-1] else []
            if point is fastest:
                says.insert(0, f"fastest at quality ≥ {MIN_QUALITY}")
            values = (f"{point.speedup:.2f}×", f"{point.quality:.3f}", Text(", ".join(says), "green"))
            rows.add_row(Text(point.trial_id, "cyan"), *values)
        if len(points) > len(shown):
            rows.add_row(Text(f"and {len(points) - len(shown)} more", "dim"))
        return rows

    def _running(self) -> Table:
        rows = Table.grid(padding=(0, 2))
        runs = list(self.tally.running.items())
        for (trial_id, seed), run in runs[:ROWS_OF_RUNNING]:
            report, label = run.report, Text(self._label(trial_id, seed), "cyan")
            if not report:
                rows.add_row(label, Text("starting", "dim"))
                continue
            rows.add_row(
                label,
                Text(str(report.get("phase") or ""), "dim"),
                f"step {report.get('step')}",
                f"loss {_short(report.get('loss'), '.4f')}",
                f"quality {_short(report.get('quality'), '.3f')}",
                f"{_short(report.get(self.tally.speedup), '.2f')}×",
            )
        if len(runs) > ROWS_OF_RUNNING:
            rows.add_row(Text(f"and {len(runs) - ROWS_OF_RUNNING} more", "dim"))
        return rows

    def _label(self, trial_id: str, seed: int) -> str:
        return f"{trial_id} seed {seed}" if self._repeats > 1 else trial_id


def _fastest(points: list[FrontPoint]) -> FrontPoint | None:
    return next((point for point in points if point.quality >= MIN_QUALITY), None)


def _result(point: FrontPoint) -> str:
    return f"{point.trial_id} {point.speedup:.2f}× quality {point.quality:.3f}"


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def _short(value: Any, form: str) -> str:
    number = _number(value)
    return "–" if math.isnan(number) else format(number, form)
