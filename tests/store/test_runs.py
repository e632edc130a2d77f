"""From a journal's events to runs."""

import pytest

from hybrid_sweep.store.runs import run_rows

NAMED = {"trial_id": "A", "seed": 0}
STARTED = {"event": "started", **NAMED, "config": {"warmup_steps": 3}}
RESULT = {"speedup": 2.0, "quality": None, "val_loss": 0.5, "val_accuracy": 0.9}


def rows(state, numbers=()):
    return run_rows([STARTED, {"event": "finished", **NAMED, "state": state, "result": RESULT}], numbers)


@pytest.mark.parametrize("state", ["done", "diverged", "failed", "pruned"])
def test_what_is_not_asked_for_changes_nothing_of_the_rest(state):
    ((key, whole),) = rows(state).items()
    ((same, part),) = rows(state, ("speedup", "quality")).items()
    assert same == key
    assert part == {name: value for name, value in whole.items() if name not in ("val_loss", "val_metric")}


def test_a_column_of_an_old_journal_has_its_present_name():
    (row,) = rows("done").values()
    assert row["val_metric"] == 0.9
    assert "val_accuracy" not in row
    assert "quality" not in row
