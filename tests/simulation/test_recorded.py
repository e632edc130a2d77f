"""Recorded runs come back as they were, and others are refused by name."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hybrid_sweep.driver.backend import Run
from hybrid_sweep.errors import UserError
from hybrid_sweep.results import ResultsFolder
from hybrid_sweep.simulation.recorded import METADATA, RecordedRuns


def run(**config) -> Run:
    return Run(trial_id="a", seed=0, config=config)


def test_a_results_folder_is_run_again_as_it_was(tmp_path: Path) -> None:
    folder = ResultsFolder.create(tmp_path / "sweep")
    for trial_id, config in (("fast", {"max_predict_steps": 50}), ("bad", {"max_predict_steps": 60})):
        folder.journal.append({"event": "started", "trial_id": trial_id, "seed": 3, "config": config})
        for step in (100, 200):
            report = {"step": step, "phase": "full", "quality": 0.9, "speedup": None, "seconds": step / 50}
            folder.journal.append({"event": "reported", "trial_id": trial_id, "seed": 3, "report": report})
    done = {"speedup": 2.5, "quality": 0.97, "rollbacks": 1, "behaviour": "abc"}
    folder.journal.append(
        {"event": "finished", "trial_id": "fast", "seed": 3, "state": "done", "reason": "", "result": done}
    )
    recorded = RecordedRuns.from_folder(folder.path)
    assert len(recorded) == 1  # the other one is still running
    again = recorded(Run(trial_id="any name", seed=3, config={"max_predict_steps": 50, "full_steps": 20}))
    assert again.state == "done"
    assert {name: again.result[name] for name in done} == done
    assert "state" not in again.result
    assert [(at, report["step"]) for at, report in again.reports] == [(2.0, 100), (4.0, 200)]
    assert "speedup" not in again.reports[0][1]
    for other in ({"max_predict_steps": 60}, {"max_predict_steps": 50, "full_steps": 21}):
        with pytest.raises(UserError, match="x with seed 3 was not recorded"):
            recorded(Run(trial_id="x", seed=3, config=other))
    with pytest.raises(UserError, match="seed 4"):
        recorded(Run(trial_id="x", seed=4, config={"max_predict_steps": 50}))


@pytest.mark.parametrize(("more", "factor"), [({}, 1.0), ({"step_seconds": 0.03}, 3.0)])
def test_a_table_of_points_is_run_in_seconds_of_counted_work(
    tmp_path: Path, more: dict[str, float], factor: float
) -> None:
    path = tmp_path / "points.parquet"
    table = pa.table(
        {
            "max_predict_steps": [50, 60],
            "state": ["done", "diverged"],
            "speedup_counted": [2.0, 3.0],
            "quality": [0.97, 0.0],
            "reports.step": [[100, 200], [200]],
            "reports.speedup_counted": [[1.0, 2.0], [3.0]],
        }
    )
    about = {
        "trainer": {"full_steps": 16},
        "steps": 200,
        "seed": 0,
        "unit_costs": {"plain_step": 0.01},
        **more,
    }
    pq.write_table(table.replace_schema_metadata({"hybrid_sweep": json.dumps(about)}), path)
    recorded = RecordedRuns.from_parquet(path)
    assert len(recorded) == 2
    first = recorded(run(max_predict_steps=50, full_steps=16))
    assert first.reports == (
        (factor, {"step": 100, "speedup_counted": 1.0}),
        (factor, {"step": 200, "speedup_counted": 2.0}),
    )
    assert first.result == {"speedup_counted": 2.0, "quality": 0.97, "steps": 200}
    assert recorded(run(max_predict_steps=60, full_steps=16)).state == "diverged"


@pytest.mark.parametrize("content", [None, b"not parquet", "no metadata"])
def test_a_file_that_holds_no_points_is_named(tmp_path: Path, content: object) -> None:
    path = tmp_path / "points.parquet"
    if content == "no metadata":
        pq.write_table(pa.table({"a": [1]}), path)
    elif content:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"points\.parquet is no table of recorded points"):
        RecordedRuns.from_parquet(path)


@pytest.mark.parametrize("about", [b"[]", b"{}", b'{"trainer": 3}', b"[" * 100_000, b"NaN"])
def test_a_table_that_says_nonsense_of_itself_is_refused(tmp_path, about):
    table = pa.table({"state": ["done"]}).replace_schema_metadata({METADATA: about})
    pq.write_table(table, tmp_path / "points.parquet")
    with pytest.raises(UserError, match="is no table of recorded points"):
        RecordedRuns.from_parquet(tmp_path / "points.parquet")
