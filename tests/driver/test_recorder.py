"""The recorder writes to disk first and tells after; what the disk refuses becomes a sentence."""

import errno

import pytest

from hybrid_sweep.driver.backend import Finished, Lost, Reported, Run, Stopped
from hybrid_sweep.driver.events import TrialFinished, TrialLost, TrialReported, TrialStarted
from hybrid_sweep.driver.recorder import Recorder
from hybrid_sweep.errors import UserError
from hybrid_sweep.results import ResultsFolder
from hybrid_sweep.store.journal import Journal

KEY = ("A", 0)
NAMED = {"trial_id": "A", "seed": 0}
RUN = Run(trial_id="A", seed=0, config={"full_steps": 7})


@pytest.fixture
def folder(tmp_path):
    return ResultsFolder.create(tmp_path / "results")


@pytest.fixture
def told():
    return []


@pytest.fixture
def recorder(folder, told):
    def on_event(event):
        told.append((event, len(Journal.read(folder.journal.path))))

    return Recorder(folder, on_event)


def events(folder):
    return [{k: v for k, v in e.items() if k != "at"} for e in Journal.read(folder.journal.path)]


def test_a_run_from_start_to_end(recorder, folder, told):
    recorder.started(RUN)
    recorder.reported(Reported(KEY, {"step": 100}))
    recorder.finished(Finished(KEY, "done", "", {"quality": 0.99}))
    assert events(folder) == [
        {"event": "started", **NAMED, "config": {"full_steps": 7}, "attempt": 1},
        {"event": "reported", **NAMED, "report": {"step": 100}},
        {"event": "finished", **NAMED, "state": "done", "reason": "", "result": {"quality": 0.99}},
    ]
    assert told == [
        (TrialStarted("A", 0), 1),
        (TrialReported("A", 0, {"step": 100}), 2),
        (TrialFinished("A", 0, "done", "", {"quality": 0.99}), 3),
    ]
    assert recorder.counts == {"done": 1}


def test_a_failure_keeps_its_traceback_in_the_journal(recorder, folder):
    recorder.finished(Finished(KEY, "failed", "ValueError: no", traceback="Traceback ..."))
    assert events(folder)[0]["traceback"] == "Traceback ..."


def test_a_lost_run_says_when_it_is_tried_again(recorder, folder, told):
    recorder.lost(Lost(KEY, "its node went", preempted=True), attempt=2, again_in_seconds=4.0)
    (event,) = events(folder)
    assert event == {"event": "lost", **NAMED, "attempt": 2, "why": "its node went", "preempted": True}
    assert told == [(TrialLost("A", 0, "its node went", 4.0), 1)]
    assert not recorder.counts


def test_the_newest_checkpoint_is_kept_until_the_run_ends(recorder, folder):
    assert recorder.checkpoint(KEY) is None
    recorder.reported(Reported(KEY, {"step": 1}, b"one"))
    recorder.reported(Reported(KEY, {"step": 2}, None))
    assert recorder.checkpoint(KEY) == b"one"
    recorder.interrupted(Stopped(KEY, {"steps": 3}, b"three"))
    assert recorder.checkpoint(KEY) == b"three"
    recorder.finished(Finished(KEY, "done", ""))
    assert recorder.checkpoint(KEY) is None
    assert not list((folder.path / "checkpoints").iterdir())


def test_a_checkpoint_without_a_report_is_kept_and_nothing_told(recorder, folder, told):
    recorder.reported(Reported(KEY, None, b"one"))
    assert recorder.checkpoint(KEY) == b"one"
    assert (events(folder), told) == ([], [])


def test_an_interrupted_run_counts_as_pruned(recorder, told):
    recorder.interrupted(Stopped(KEY, {"steps": 3}))
    assert recorder.counts == {"pruned": 1}
    assert told[0][0] == TrialFinished("A", 0, "pruned", "interrupted", {"steps": 3})


@pytest.mark.parametrize("write", ["append", "checkpoint"])
def test_a_full_disk_is_told_in_one_sentence_with_the_way_on(recorder, folder, monkeypatch, write):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(
        *{"append": (Journal, "append"), "checkpoint": (ResultsFolder, "write_checkpoint")}[write], full
    )
    with pytest.raises(UserError, match="No space left on device") as error:
        recorder.reported(Reported(KEY, {"step": 1}, b"x"))
    assert f"hybrid-sweep resume {folder.path}" in str(error.value)
