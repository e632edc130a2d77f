"""The front of a terminal is that of the tables, made without them."""

import json
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hybrid_sweep.analysis.front_rows import front_rows
from hybrid_sweep.results import ResultsFolder
from hybrid_sweep.store.columns import TRIAL_COLUMNS

NUMBERS = [column.name for column in TRIAL_COLUMNS if column.kind != "text" and column.name != "seed"]


def check(folder: ResultsFolder) -> None:
    """Compare the rows with the table's."""
    rows, front = pd.DataFrame(front_rows(folder)), folder.table("front")
    assert len(rows) == len(front)
    if len(front):
        assert rows["trial_id"].tolist() == front["trial_id"].tolist()
        assert rows["seed"].tolist() == front["seed"].astype("str").tolist()
        intervals = [name for name in front if name.endswith(("_low", "_high"))]
        assert [name for name in rows if name.endswith(("_low", "_high"))] == intervals
        names = NUMBERS + intervals
        pd.testing.assert_frame_equal(rows[names], front[names].astype("float64"), check_column_type=False)


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
@pytest.mark.parametrize("timing", ["measured", "counted"])
def test_it_is_the_front_of_the_table(sweep: Callable[..., ResultsFolder], seeds: Any, timing: str) -> None:
    folder = sweep(seeds=seeds, manifest={"spec": {"timing": timing}})
    assert len(front_rows(folder)) > 1
    check(folder)


def test_nothing_is_on_the_front_of_an_empty_sweep(empty: ResultsFolder) -> None:
    assert front_rows(empty) == []


coarse = st.sampled_from([0.5, 1.0, 1.5, 2.0, None, "inf"])
runs = st.tuples(
    st.sampled_from("abcde"),
    st.integers(0, 2),
    st.sampled_from(["", "", "", "lr"]),
    st.sampled_from(["done", "done", "done", "diverged", "pruned", "failed", "running"]),
    coarse,
    coarse,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(runs, max_size=15, unique_by=lambda run: run[:2]))
def test_whatever_has_happened(empty: ResultsFolder, drawn: list[tuple[Any, ...]]) -> None:
    lines = []
    for name, seed, arm, state, speedup, quality in drawn:
        run = {"trial_id": arm + name, "seed": seed}
        lines.append({"event": "started", **run, "config": {"max_predict_steps": 50}, "arm": arm})
        if state != "running":
            result = {"speedup": speedup, "quality": quality, "realised_horizon_mean": quality}
            lines.append({"event": "finished", **run, "state": state, "result": result})
    empty.journal.path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    check(empty)
