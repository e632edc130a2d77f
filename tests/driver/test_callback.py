"""Callbacks hear each event by the method of its kind."""

from pathlib import Path

import pytest

from hybrid_sweep.driver.callback import Callback, tell_all
from hybrid_sweep.driver.events import (
    Note,
    SweepEnded,
    SweepStarted,
    TrialFinished,
    TrialLost,
    TrialReported,
    TrialStarted,
)

EVENTS = {
    "on_sweep_start": SweepStarted(3, Path("out"), 1),
    "on_run_start": TrialStarted("H050", 0),
    "on_run_report": TrialReported("H050", 0, {"step": 3}),
    "on_run_lost": TrialLost("H050", 0, "its node went", 1.0),
    "on_run_end": TrialFinished("H050", 0, "done", "", {}),
    "on_sweep_end": SweepEnded({"done": 1}, False),
}


@pytest.mark.parametrize("method", EVENTS)
def test_each_kind_has_its_method(method, monkeypatch):
    heard = []
    monkeypatch.setattr(Callback, method, lambda self, event: heard.append(event))
    tell_all([Callback()])(EVENTS[method])
    assert heard == [EVENTS[method]]


def test_all_are_called_in_order_and_other_events_pass():
    heard = []

    class One(Callback):
        def __init__(self, name):
            self.name = name

        def on_event(self, event):
            heard.append((self.name, event))
            super().on_event(event)

    note = Note("hello")
    tell_all([One("a"), One("b")])(note)
    assert heard == [("a", note), ("b", note)]
