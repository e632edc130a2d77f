"""A sweep's folder: started whole or not at all, and not gone on from where it is damaged."""

import errno

import pytest
from support.killable import new_sweep, sit
from support.sweeps import sweep

from hybrid_sweep.driver.sweep import begin, left_out, recorded_spec, replayed, started_arms
from hybrid_sweep.errors import UserError
from hybrid_sweep.search.storage import JournalFileBackend
from hybrid_sweep.store.folder import SweepFolder


@pytest.mark.parametrize(
    ("part", "method"), [(JournalFileBackend, "append_logs"), (SweepFolder, "write_manifest")]
)
def test_a_folder_that_has_no_room_is_told_of_in_a_sentence_and_not_left_half_made(
    tmp_path, monkeypatch, part, method
):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(part, method, full)
    with pytest.raises(UserError, match=r"cannot write to .*out \(No space left on device\): make room"):
        begin(tmp_path / "out", sweep(), 100, {})
    assert not list(tmp_path.iterdir())


def test_a_storage_that_holds_the_study_already_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr("hybrid_sweep.driver.sweep.uuid4", lambda: type("Id", (), {"hex": "one"}))
    spec = sweep(storage=f"sqlite:///{tmp_path / 'studies'}")
    begin(tmp_path / "first", spec, 100, {})
    with pytest.raises(UserError, match="already"):
        begin(tmp_path / "second", spec, 100, {})
    assert not (tmp_path / "second").exists()


def test_a_journal_whose_event_does_not_say_of_which_run_it_is_is_refused_in_a_sentence(tmp_path):
    folder = new_sweep(tmp_path / "out")
    with folder.journal.path.open("a") as file:
        file.write('{"event": "started", "trial_id": "H020_I00_C0.85", "config": {}}\n')
    with pytest.raises(UserError, match=r"journal\.jsonl is corrupt: line \d+ is not an event \(seed: Field"):
        sit(folder.path)


@pytest.mark.parametrize("steps", ["absent", None, 0])
def test_a_manifest_without_its_steps_goes_no_further(tmp_path, steps):
    folder = new_sweep(tmp_path / "out")
    manifest = folder.manifest
    folder.write_manifest({k: v for k, v in (manifest | {"steps": steps}).items() if v != "absent"})
    for read in (recorded_spec, replayed):
        with pytest.raises(UserError, match=r"corrupt \(no steps\)"):
            read(folder)


def test_arms_are_those_of_controls_that_were_started():
    events = [{"event": "started", "trial_id": "a", "arm": "lr"}, {"event": "later", "arm": "no trial"}]
    assert started_arms(events) == {"a": "lr"}


def test_a_control_that_does_not_apply_is_told_of_once(tmp_path):
    def finished(name, state, reason):
        return {"event": "finished", "trial_id": name, "seed": 0, "state": state, "reason": reason}

    events = [
        finished("tuned_00", "pruned", "no AdamW here"),
        finished("tuned_01", "pruned", "no AdamW here"),
        finished("lr_x2", "done", ""),
        finished("H010", "pruned", "stopped early"),
    ]
    arms = {"tuned_00": "tuned", "tuned_01": "tuned", "lr_x2": "lr"}
    assert left_out(events, arms) == {"tuned": "no AdamW here"}
