"""The recorder turns Tune's callbacks into the journal and into events, each ending told once."""

from types import SimpleNamespace

import pytest

from hybrid_sweep.analysis.folder import ResultsFolder
from hybrid_sweep.driver.events import TrialFinished, TrialReported, TrialStarted
from hybrid_sweep.driver.recorder import Recorder
from hybrid_sweep.journal import Journal


@pytest.fixture
def folder(tmp_path):
    return ResultsFolder.create(tmp_path / "results")


@pytest.fixture
def told():
    return []


@pytest.fixture
def recorder(folder, told):
    return Recorder(folder, told.append)


def trial(trial_id="A", seed=0, error_file=None):
    point = {"trial_id": trial_id, "seed": seed, "config": {"full_steps": 7}}
    return SimpleNamespace(config={"point": point}, error_file=error_file)


def events(folder):
    return [{k: v for k, v in e.items() if k != "at"} for e in Journal.read(folder.journal.path)]


def test_a_run_from_start_to_end(recorder, folder, told):
    ended = {"state": "done", "reason": "", "result": {"quality": 0.99}}
    recorder.on_trial_start(1, [], trial())
    recorder.on_trial_result(1, [], trial(), {"report": {"step": 100}, "done": False})
    recorder.on_trial_result(2, [], trial(), {"report": {"step": 200}, "finished": ended, "done": True})
    key = {"trial_id": "A", "seed": 0}
    assert events(folder) == [
        {"event": "started", **key, "config": {"full_steps": 7}},
        {"event": "reported", **key, "report": {"step": 100}},
        {"event": "reported", **key, "report": {"step": 200}},
        {"event": "finished", **key, **ended},
    ]
    assert told == [
        TrialStarted("A", 0),
        TrialReported("A", 0, {"step": 100}),
        TrialReported("A", 0, {"step": 200}),
        TrialFinished("A", 0, "done", "", {"quality": 0.99}),
    ]
    assert recorder.counts == {"done": 1}


def test_a_failure_keeps_its_traceback_in_the_journal(recorder, folder):
    failed = {"state": "failed", "reason": "ValueError: no", "result": {}, "traceback": "Traceback ..."}
    recorder.on_trial_result(1, [], trial(), {"finished": failed, "done": True})
    assert [e["event"] for e in events(folder)] == ["finished"]
    assert events(folder)[0]["traceback"] == "Traceback ..."


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "lost: its worker died"),
        (
            "Failure # 1 (occurred at 2026-11-23_06-45-06)\nThe actor died unexpectedly.\n\tpid: 1\n",
            "lost: The actor died unexpectedly.",
        ),
        (
            "Failure # 1 (occurred at now)\nray::setup() (pid=1)\n  File x\nImportError: no torch\n",
            "lost: ImportError: no torch",
        ),
        ("Failure # 1 (occurred at now)\n", "lost: its worker died"),
    ],
)
def test_a_lost_worker_says_how(recorder, folder, tmp_path, text, reason):
    error = tmp_path / "error.txt"
    if text is not None:
        error.write_text(text)
    recorder.on_trial_error(1, [], trial(error_file=str(error)))
    (ended,) = events(folder)
    assert ended["reason"] == reason
    assert ended.get("traceback") == text
    assert recorder.counts == {"failed": 1}


def test_the_first_ending_stands(recorder, folder):
    recorder.finish(("A", 0), "done", "", {})
    recorder.on_trial_error(1, [], trial())
    recorder.close(False, [("A", 0)])
    assert [e["state"] for e in events(folder)] == ["done"]
    assert recorder.counts == {"done": 1}


def test_a_run_that_tune_starts_again_began_once(recorder, folder):
    recorder.on_trial_start(1, [], trial())
    recorder.on_trial_start(2, [], trial())
    assert len(events(folder)) == 1


def test_seeds_of_one_configuration_are_runs_of_their_own(recorder):
    for seed in (0, 1):
        recorder.on_trial_start(1, [], trial(seed=seed))
        recorder.finish(("A", seed), "done", "", {})
    assert recorder.counts == {"done": 2}


class TestClosing:
    def test_after_ctrl_c_what_began_is_pruned_and_the_rest_never_was(self, recorder, folder):
        recorder.on_trial_start(1, [], trial("A"))
        recorder.on_trial_start(1, [], trial("B"))
        recorder.finish(("A", 0), "done", "", {})
        recorder.close(True, [("A", 0), ("B", 0), ("C", 0)])
        assert recorder.counts == {"done": 1, "pruned": 1}
        assert events(folder)[-1]["reason"] == "interrupted"

    def test_otherwise_what_has_no_end_is_lost(self, recorder):
        recorder.on_trial_start(1, [], trial("A"))
        recorder.close(False, [("A", 0), ("B", 0)])
        assert recorder.counts == {"failed": 2}


def test_tune_may_pickle_it(recorder):
    assert recorder.__getstate__() == {}
