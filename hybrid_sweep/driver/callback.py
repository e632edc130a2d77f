"""Callback: what is called while a sweep runs."""

from __future__ import annotations

from collections.abc import Iterable

from hybrid_sweep.driver.events import (
    OnEvent,
    SweepEnded,
    SweepEvent,
    SweepStarted,
    TrialFinished,
    TrialLost,
    TrialReported,
    TrialStarted,
)
from hybrid_sweep.spec.sweep import SweepSpec


class Callback:
    """Base class of callbacks: override what is of interest.

    A sweep calls its callbacks in the driver's thread, one after the other, after the event is on disk. An
    exception of a callback ends the sweep as Ctrl-C does: `resume` goes on. Callbacks cannot change what is
    trained.

    Order of calls: `setup`, then `on_event` for every event, then `teardown`, also where the sweep fails.
    `on_event` calls the method of the event's kind; override it to see all of them
    (`hybrid_sweep.driver.events` lists the kinds).
    """

    def setup(self, spec: SweepSpec) -> None:
        """Prepare for a sweep, before anything of it starts."""

    def teardown(self) -> None:
        """Release what `setup` took, after the last event."""

    def on_sweep_start(self, event: SweepStarted) -> None:
        """Take note that the runs start."""

    def on_run_start(self, event: TrialStarted) -> None:
        """Take note that a run starts, or starts again."""

    def on_run_report(self, event: TrialReported) -> None:
        """Take note of a report of a run."""

    def on_run_lost(self, event: TrialLost) -> None:
        """Take note that a worker died, and that its run starts again."""

    def on_run_end(self, event: TrialFinished) -> None:
        """Take note that a run ended, well or badly."""

    def on_sweep_end(self, event: SweepEnded) -> None:
        """Take note that no run is left."""

    def on_event(self, event: SweepEvent) -> None:
        """Call the method of the event's kind."""
        match event:
            case SweepStarted():
                self.on_sweep_start(event)
            case TrialStarted():
                self.on_run_start(event)
            case TrialReported():
                self.on_run_report(event)
            case TrialLost():
                self.on_run_lost(event)
            case TrialFinished():
                self.on_run_end(event)
            case SweepEnded():
                self.on_sweep_end(event)
            case _:
                pass


def tell_all(callbacks: Iterable[Callback]) -> OnEvent:
    """Return what hands an event to each callback."""
    listening = list(callbacks)

    def on_event(event: SweepEvent) -> None:
        for callback in listening:
            callback.on_event(event)

    return on_event
