"""The loop of a sweep: ask, keep every slot busy, write down what happens, try again what was lost."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from math import inf

from hybrid_sweep.driver.backend import Backend, Finished, Key, Lost, Reported, Run, RunUpdate, Stopped
from hybrid_sweep.driver.interrupts import defer_interrupts
from hybrid_sweep.driver.recorder import Recorder
from hybrid_sweep.driver.silence import REMEDY, Silence
from hybrid_sweep.search.study import Study

LOOK_EVERY_SECONDS = 1.0
FIRST_BACKOFF_SECONDS = 1.0
LONGEST_BACKOFF_SECONDS = 60.0
EARLY = "early stopping by Pareto rank"
GRACE_SECONDS = 20.0
"""How long an interrupted sweep waits for the last checkpoints."""


@dataclass(slots=True)
class _Open:
    """A run that has not ended: how often it was lost by its own fault, and what has been asked of it.

    `signs` counts its signs of life; None while it does not run.
    """

    run: Run
    losses: int = 0
    pruned: bool = False
    signs: int | None = None


@dataclass(slots=True)
class Loop:
    """Drives one sweep to its end; knows neither Ray nor Optuna.

    Attributes:
        study: what to try.
        backend: where runs happen.
        recorder: where it is written down.
        seeds: every point runs with each of them.
        max_retries: how often a run is started again after its worker died; pre-emption is not counted.
        trial_timeout: seconds without a report after which a run counts as hanging, and its worker is killed.
        stop_requested: looked at once a second; True winds the sweep down as Ctrl-C does.
    """

    study: Study
    backend: Backend
    recorder: Recorder
    seeds: list[int]
    max_retries: int
    trial_timeout: float = inf
    stop_requested: Callable[[], bool] = lambda: False
    _heard: deque[RunUpdate] = field(default_factory=deque)
    _waiting: deque[Run] = field(default_factory=deque)
    _controls: deque[Run] = field(default_factory=deque)
    _retries: list[tuple[float, Run]] = field(default_factory=list)
    _open: dict[Key, _Open] = field(default_factory=dict)
    _slots: int = 0
    _silence: Silence[Key] = field(init=False)
    _exhausted: bool = False

    def __post_init__(self) -> None:
        self._silence = Silence(self.trial_timeout)

    def run(self, unfinished: Iterable[Run] = (), controls: Iterable[Run] = ()) -> bool:
        """Run everything, beginning with the runs that a journal left open; return whether it was cut short.

        Args:
            unfinished: runs of points that were asked before.
            controls: runs beside the points, which begin when no point is left to ask.

        Raises:
            UserError: the results folder cannot be written, or no worker can be started.
        """
        self._waiting.extend(unfinished)
        self._controls.extend(controls)
        try:
            while True:
                with defer_interrupts():  # what was heard is on disk before anything ends
                    if not self._fill():
                        return False
                    idle = not self._listen(0 if self._can_ask_ahead() else self._patience())
                    while self._heard:
                        self._take(self._heard.popleft())
                    self._kill_what_hangs()
                if idle:
                    self.recorder.waiting()
                if self.stop_requested():
                    return self._wind_down()
                if idle and self._can_ask_ahead():
                    self._ask()
        except KeyboardInterrupt:
            return self._wind_down()

    def _listen(self, seconds: float) -> bool:
        """Hear what happens within `seconds`; return whether anything did."""
        self._heard.extend(self.backend.wait(seconds))
        return bool(self._heard)

    def _fill(self) -> bool:
        """Start runs while there are slots; return whether anything is left to wait for."""
        if self._slots != self.backend.slots:
            self._slots = self.backend.slots
            self.recorder.slots_changed(self._slots)
            if not self._slots:
                self.recorder.note("no node is left that could run a trial: waiting for one")
        while self.backend.free > 0 and (run := self._next()) is not None:
            checkpoint = self.recorder.checkpoint(run.key)
            self.recorder.started(run)
            open_run = self._open.setdefault(run.key, _Open(run))
            open_run.run, open_run.signs = run, 0
            self.backend.start(run, checkpoint)
        left = self._open or self._waiting or self._controls or self._retries
        return bool(left or self._may_ask)

    def _next(self) -> Run | None:
        now = self.backend.now()
        for index, (ready, run) in enumerate(self._retries):
            if ready <= now:
                del self._retries[index]
                return run
        while self._waiting or self._ask():
            run = self._waiting.popleft()
            if self.study.wants(run.trial_id):
                return run
            if run.attempt > 1:
                self._finish(Finished(run.key, "pruned", EARLY))
        return self._controls.popleft() if self._controls else None

    def _ask(self) -> bool:
        """Queue the runs of one more point, if the study has one."""
        if not self._may_ask:
            return False
        asked = self.study.ask()
        if asked is None:
            self._exhausted = True
            return False
        point = asked.point
        self.recorder.asked(asked.event())
        self._waiting.extend(
            Run(trial_id=point.trial_id, seed=seed, config=point.config) for seed in self.seeds
        )
        return True

    @property
    def _may_ask(self) -> bool:
        """Whether the study may have another point; a run under way may still make a flat front grow."""
        return not (self._exhausted or self.study.flat)

    def _can_ask_ahead(self) -> bool:
        """Whether to use idle time for a sampler that thinks longer than a slot should stand empty."""
        return self.study.slow_to_ask and self._may_ask and len(self._waiting) < self.backend.slots

    def _patience(self) -> float:
        """Return seconds until the next retry is due; one that is due already waits for a slot."""
        now = self.backend.now()
        return min([LOOK_EVERY_SECONDS, *(ready - now for ready, _ in self._retries if ready > now)])

    def _take(self, update: RunUpdate) -> None:
        open_run = self._open.get(update.key)
        if open_run is None:
            return
        if isinstance(update, Reported):
            open_run.signs = (open_run.signs or 0) + 1
            self.recorder.reported(update)
            if update.report is None:
                return
            if self.study.report(update.key, update.report) and not open_run.pruned:
                open_run.pruned = True
                self.backend.stop(update.key)
            return
        del self._open[update.key]
        if isinstance(update, Stopped):
            update = Finished(update.key, "pruned", EARLY, update.result)
        if isinstance(update, Finished) and open_run.pruned and len(self.seeds) > 1:
            # it ended before the stop reached it, but its point was given up: its other seeds will not run
            update = Finished(update.key, "pruned", EARLY, update.result)
        if isinstance(update, Lost):
            self._lose(update, open_run)
        else:
            self._finish(update)

    def _kill_what_hangs(self) -> None:
        """Kill the workers under runs that have given no sign of life for `trial_timeout`."""
        signs = {key: each.signs for key, each in self._open.items() if each.signs is not None}
        for key in self._silence.too_long(self.backend.now(), signs):
            self.backend.kill(key, f"it hung: no report for {self.trial_timeout:.0f} s; {REMEDY}")

    def _lose(self, lost: Lost, open_run: _Open) -> None:
        """Start the run again later, or give it up."""
        if open_run.pruned:
            self._finish(Finished(lost.key, "pruned", EARLY))
            return
        losses = open_run.losses + (not lost.preempted)
        if losses > self.max_retries:
            tries = f" {losses} times" if losses > 1 else ""
            self._finish(Finished(lost.key, "failed", f"lost{tries}: {lost.why}", traceback=lost.details))
            return
        run = open_run.run
        backoff = min(FIRST_BACKOFF_SECONDS * 2.0 ** min(run.attempt - 1, 10), LONGEST_BACKOFF_SECONDS)
        self.recorder.lost(lost, run.attempt, backoff)
        again = replace(run, attempt=run.attempt + 1)
        self._open[run.key] = _Open(again, losses)
        self._retries.append((self.backend.now() + backoff, again))

    def _finish(self, finished: Finished) -> None:
        self.recorder.finished(finished)
        self.study.finish(finished.key, finished.state, finished.reason, finished.result)

    def _wind_down(self) -> bool:
        """Stop what runs, keeping a checkpoint of each; what has already ended is finished."""
        waiting_again = {run.key for _, run in self._retries}
        running = [key for key in self._open if key not in waiting_again]
        for key in running:
            self.backend.stop(key, keep=True)
        left, deadline = set(running), self.backend.now() + GRACE_SECONDS
        try:
            while left and self.backend.now() < deadline:
                with defer_interrupts():
                    if not self._heard:
                        self._listen(LOOK_EVERY_SECONDS)
                    while self._heard:
                        update = self._heard.popleft()
                        if isinstance(update, Stopped) and not self._open[update.key].pruned:
                            self.recorder.interrupted(update)
                        elif isinstance(update, Lost):
                            self.recorder.interrupted(Stopped(update.key))
                        else:
                            self._take(update)
                        if not isinstance(update, Reported):
                            left.discard(update.key)
        except KeyboardInterrupt:
            pass
        started_before = {run.key for run in [*self._waiting, *self._controls] if run.attempt > 1}
        for key in [*left, *waiting_again, *started_before]:
            self.recorder.interrupted(Stopped(key))
        return True
