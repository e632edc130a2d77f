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

from hybrid_sweep.driver.events import (
    Note,
    SweepEnded,
    SweepEvent,
    SweepStarted,
    TrialFinished,
    TrialReported,
    TrialStarted,
)
from hybrid_sweep.spec import SweepSpec

GOOD_QUALITY = 0.98  # the bar that the fastest run so far has to reach
LINE_EVERY_SECONDS = 3.0
ROWS_OF_RUNNING = 8
STATES = {"done": "green", "diverged": "yellow", "pruned": "blue", "failed": "red"}
Run = tuple[str, int]  # trial_id, seed


@dataclass(slots=True)
class _Running:
    since: float
    report: Mapping[str, Any] = field(default_factory=dict)


class Tally:
    """What is known of a sweep so far. Time is handed in, never read.

    Args:
        speedup: the column that the front is made of.
        reference: corner of the hypervolume, `(speedup, quality)`.
    """

    def __init__(self, speedup: str, reference: tuple[float, float]) -> None:
        self.speedup = speedup
        self.reference = reference
        self.total = 0
        self.slots = 1
        self.counts: Counter[str] = Counter()
        self.running: dict[Run, _Running] = {}
        self.fastest: dict[str, Any] | None = None
        self.best: dict[str, Any] | None = None
        self.hypervolume = 0.0
        self._rows: list[dict[str, Any]] = []
        self._seconds: list[float] = []

    @property
    def finished(self) -> int:
        """How many runs have ended, in whichever state."""
        return self.counts.total()

    @property
    def seconds_a_trial(self) -> float | None:
        """Mean seconds of the runs that were seen from start to end, or None before the first."""
        return sum(self._seconds) / len(self._seconds) if self._seconds else None

    def seconds_left(self, now: float) -> float | None:
        """Estimate the time left: the work that remains, shared by the slots that have some."""
        each = self.seconds_a_trial
        unfinished = self.total - self.finished
        if each is None or unfinished <= 0:
            return None if unfinished else 0.0
        running = list(self.running.values())
        begun = sum(max(each - (now - run.since), 0.0) for run in running)
        return (begun + each * max(unfinished - len(running), 0)) / min(self.slots, unfinished)

    def apply(self, event: SweepEvent, now: float) -> None:
        """Take one event into account, `now` in seconds of any clock."""
        match event:
            case SweepStarted():
                self.total, self.slots = event.total, max(event.slots, 1)
            case TrialStarted():
                self.running[event.trial_id, event.seed] = _Running(now)
            case TrialReported():
                self.running.setdefault((event.trial_id, event.seed), _Running(now)).report = event.report
            case TrialFinished():
                self._finish(event, now)
            case SweepEnded():
                self.running.clear()
            case Note():
                pass

    def _finish(self, event: TrialFinished, now: float) -> None:
        begun = self.running.pop((event.trial_id, event.seed), None)
        if begun:
            self._seconds.append(now - begun.since)
        self.counts[event.state] += 1
        row: dict[str, Any] = {
            "trial_id": event.trial_id,
            "seed": event.seed,
            "state": event.state,
            "speedup": _number(event.result.get(self.speedup)),
            "quality": _number(event.result.get("quality")),
        }
        self._rows.append(row)
        if event.state != "done" or math.isnan(row["speedup"]) or math.isnan(row["quality"]):
            return
        if self.best is None or row["quality"] > self.best["quality"]:
            self.best = row
        if row["quality"] >= GOOD_QUALITY and (
            self.fastest is None or row["speedup"] > self.fastest["speedup"]
        ):
            self.fastest = row
        self.hypervolume = _hypervolume(self._rows, self.reference)


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
        self.console = console or Console(highlight=False)
        self.tally = Tally(spec.speedup_column, spec.hypervolume_reference.pair)
        self._name = spec.name
        self._with_seed = spec.repeats > 1
        self._clock = clock
        self._since = clock()
        self._last_line = -math.inf
        drawn_in_place = self.console.is_interactive and sys.stdout.isatty() if live is None else live
        self._live = (
            Live(self, console=self.console, refresh_per_second=4, transient=True) if drawn_in_place else None
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def __call__(self, event: SweepEvent) -> None:
        """Take one event and show it."""
        now = self._clock()
        self.tally.apply(event, now)
        match event:
            case SweepStarted():
                at_once = f"{event.total} runs, {event.slots} at a time"
                self._print(f"{self._name}: {at_once}, results in {event.folder}")
                if self._live:
                    self._live.start()
            case Note():
                self._print(event.text, "dim")
            case TrialFinished(state="failed"):
                self._print(f"{self._label(event.trial_id, event.seed)} failed: {event.reason}", "red")
                self._line(now)
            case TrialFinished():
                self._line(now)
            case SweepEnded():
                self.__exit__()
                took = clock_text(now - self._since)
                self._print(f"Took {took}, hypervolume {self.tally.hypervolume:.4f}.")

    def __rich__(self) -> RenderableType:
        tally, now = self.tally, self._clock()
        head = Table.grid(padding=(0, 2))
        bar = ProgressBar(total=max(tally.total, 1), completed=tally.finished, width=36)
        head.add_row(Text(self._name, "bold"), bar, f"{tally.finished}/{tally.total}", *self._pace(now))
        counts = Text("  ").join(
            Text(f"{count} {state}", style if count else "dim") for state, count, style in self._states()
        )
        return Group("", head, counts, self._bests(), self._running(), "")

    def _print(self, text: str, style: str = "") -> None:
        self.console.print(Text(text, style), soft_wrap=True)

    def _line(self, now: float) -> None:
        """Print one plain line, unless there was one just now and more are to come."""
        tally = self.tally
        if self._live or (now - self._last_line < LINE_EVERY_SECONDS and tally.finished < tally.total):
            return
        self._last_line = now
        parts = [f"{tally.finished}/{tally.total}"]
        parts.append(", ".join(f"{count} {state}" for state, count, _ in self._states() if count))
        if tally.fastest:
            parts.append(f"fastest at quality >= {GOOD_QUALITY}: {self._result(tally.fastest)}")
        if tally.best:
            parts.append(f"best quality: {self._result(tally.best)}")
        parts.append(f"hypervolume {tally.hypervolume:.4f}")
        self._print(" | ".join([*parts, *self._pace(now)]))

    def _states(self) -> list[tuple[str, int, str]]:
        """Return `(state, count, style)`; a pruned run is news, the other states are always shown."""
        counts = self.tally.counts
        ended = [(state, counts[state], style) for state, style in STATES.items()]
        shown = [row for row in ended if row[0] != "pruned" or row[1]]
        return [shown[0], ("running", len(self.tally.running), "cyan"), *shown[1:]]

    def _pace(self, now: float) -> list[str]:
        each, left = self.tally.seconds_a_trial, self.tally.seconds_left(now)
        if each is None or left is None:
            return []
        if self.tally.finished >= self.tally.total:
            return [f"{each:.1f} s a trial"]
        return [f"{each:.1f} s a trial", f"{clock_text(left)} left"]

    def _bests(self) -> Table:
        rows = Table.grid(padding=(0, 2))
        for name, row in (
            (f"fastest at quality ≥ {GOOD_QUALITY}", self.tally.fastest),
            ("best quality", self.tally.best),
        ):
            rows.add_row(Text(name, "dim"), self._result(row) if row else Text("none yet", "dim"))
        rows.add_row(Text("hypervolume", "dim"), f"{self.tally.hypervolume:.4f}")
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
        return f"{trial_id} seed {seed}" if self._with_seed else trial_id

    def _result(self, row: Mapping[str, Any]) -> str:
        return (
            f"{self._label(row['trial_id'], row['seed'])} {row['speedup']:.2f}× quality {row['quality']:.3f}"
        )


def clock_text(seconds: float) -> str:
    """Return `1:05` or `2:01:05`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _hypervolume(rows: list[dict[str, Any]], reference: tuple[float, float]) -> float:
    import pandas as pd

    from hybrid_sweep.analysis.pareto import hypervolume

    return hypervolume(pd.DataFrame(rows), reference, x="speedup", y="quality")


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def _short(value: Any, form: str) -> str:
    number = _number(value)
    return "–" if math.isnan(number) else format(number, form)
