"""Tables of trials and steps are views of the journal, whatever state it was left in."""

import math
import re

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybrid_sweep.analysis.table import hybrid_runs, run_rows, steps_table, trials_table
from hybrid_sweep.errors import UserError
from hybrid_sweep.results import ResultsFolder
from hybrid_sweep.store.columns import TRIAL_COLUMNS

CONFIG = {
    "max_predict_steps": 75,
    "correction_interval": 15,
    "confidence_threshold": 0.6,
    "divergence_threshold": 3.0,
}
KEY = {"trial_id": "H075_I15_C0.60", "seed": 0}
STARTED = {"event": "started", **KEY, "config": CONFIG}


def finished(state: str = "done", reason: str = "", **result: object) -> dict[str, object]:
    return {"event": "finished", **KEY, "state": state, "reason": reason, "result": result}


def reported(step: int, **report: object) -> dict[str, object]:
    return {"event": "reported", **KEY, "report": {"step": step, "phase": "full", **report}}


def test_columns_are_the_contracts_in_order() -> None:
    contract = re.findall(
        r"\w+",
        "trial_id, seed, state, reason, max_predict_steps, correction_interval, confidence_threshold, "
        "divergence_threshold, speedup, speedup_counted, speedup_bound, quality, quality_vs_truncated, "
        "quality_vs_frozen, val_loss, reference_val_loss, backward_reduction_pct, backward_calls, "
        "forward_only_calls, realised_horizon_mean, micro_corrections, abort_rate, behaviour",
    )
    columns = list(trials_table([]).columns)
    assert columns[: len(contract)] == contract
    assert columns == [column.name for column in TRIAL_COLUMNS]
    assert all(column.meaning for column in TRIAL_COLUMNS)


def test_a_started_trial_is_running_with_its_settings() -> None:
    row = trials_table([STARTED]).iloc[0]
    assert (row["state"], row["max_predict_steps"], row["confidence_threshold"]) == ("running", 75, 0.6)
    assert pd.isna(row["speedup"])


def test_a_finished_trial_has_its_result_and_its_kinds() -> None:
    table = trials_table([STARTED, finished(speedup=2.5, backward_calls=480, steps_to_target_ratio="inf")])
    row = table.iloc[0]
    assert (row["state"], row["speedup"], row["backward_calls"]) == ("done", 2.5, 480)
    assert math.isinf(row["steps_to_target_ratio"])
    assert table["backward_calls"].dtype == "Int64"
    assert table["speedup"].dtype == "float64"


def test_failed_trials_have_no_numbers_and_diverged_ones_quality_0() -> None:
    failed = trials_table([STARTED, finished("failed", "lost", speedup=2.0)]).iloc[0]
    assert (failed["reason"], failed["max_predict_steps"]) == ("lost", 75)
    assert pd.isna(failed["speedup"])
    diverged = trials_table([STARTED, finished("diverged", "NaN", quality=None)]).iloc[0]
    assert diverged["quality"] == 0


def test_a_trial_started_again_begins_again() -> None:
    events = [STARTED, finished("failed", "lost"), STARTED]
    assert trials_table(events)["state"].tolist() == ["running"]
    assert trials_table([*events, finished(quality=0.99)])["quality"].tolist() == [0.99]


def started(attempt: int = 1) -> dict[str, object]:
    return {**STARTED, "attempt": attempt}


def interrupted(**result: object) -> dict[str, object]:
    return {"event": "interrupted", **KEY, "result": result}


LOST = {"event": "lost", **KEY, "attempt": 1, "why": "node died", "preempted": False}
RETRIED = {"event": "retried", **KEY}


def test_a_lost_run_still_runs_and_counts_its_attempts() -> None:
    assert trials_table([started(), LOST])["state"].tolist() == ["running"]
    again = trials_table([started(), LOST, started(2), finished(speedup=2.0)])
    assert again[["state", "attempts", "speedup"]].to_numpy().tolist() == [["done", 2, 2.0]]


def test_a_journal_without_attempts_began_each_run_once() -> None:
    assert trials_table([STARTED, finished()])["attempts"].tolist() == [1]


def test_an_interrupted_run_is_pruned_with_what_it_had_reached_until_it_goes_on() -> None:
    stopped = [started(), interrupted(steps=700, quality=0.9, speedup=None)]
    row = trials_table(stopped).iloc[0]
    assert (row["state"], row["reason"], row["steps"], row["quality"]) == ("pruned", "interrupted", 700, 0.9)
    row = trials_table([*stopped, started(2)]).iloc[0]
    assert (row["state"], row["reason"], row["attempts"]) == ("running", "", 2)
    assert pd.isna(row["quality"])


def test_a_run_stopped_early_keeps_its_values_at_its_own_step() -> None:
    row = trials_table([started(), finished("pruned", "early stopping", steps=260, quality=0.97)]).iloc[0]
    assert (row["state"], row["steps"], row["quality"]) == ("pruned", 260, 0.97)


def test_a_failed_run_is_opened_again() -> None:
    row = trials_table([started(), finished("failed", "boom"), RETRIED]).iloc[0]
    assert (row["state"], row["reason"], row["max_predict_steps"]) == ("running", "", 75)


def test_a_point_says_who_chose_it_and_when() -> None:
    asked = {"event": "asked", "trial_id": KEY["trial_id"], "number": 7, "config": CONFIG, "source": "tpe"}
    never_started = {**asked, "trial_id": "other"}
    known = {"event": "known", "config": CONFIG, "values": {}, "from": "earlier"}
    table = trials_table([known, asked, never_started, started(), finished()])
    assert table[["trial_id", "number", "source"]].to_numpy().tolist() == [[KEY["trial_id"], 7, "tpe"]]
    assert trials_table([started()])["source"].tolist() == [""]


@settings(deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [started(), started(2), LOST, RETRIED, interrupted(), finished(), finished("failed")]
        ),
        min_size=1,
    )
)
def test_whatever_happens_the_last_event_decides(events: list[dict[str, object]]) -> None:
    last = events[-1]
    expected = {"interrupted": "pruned", "finished": last.get("state")}.get(str(last["event"]), "running")
    rows = run_rows(events)
    (row,) = rows.values()
    if last["event"] != "lost":  # a loss says nothing of a run that has ended
        assert row["state"] == expected
    assert row["lost"] == sum(event["event"] == "lost" for event in events)
    assert row["retried"] == sum(event["event"] == "retried" for event in events)


def test_steps_hold_every_report_field() -> None:
    table = steps_table([STARTED, reported(120, loss=0.5), reported(240, loss=None, quality=0.9), finished()])
    assert table.columns.tolist()[:4] == ["trial_id", "seed", "step", "phase"]
    assert table["step"].tolist() == [120, 240]
    assert table["quality"].tolist()[1] == 0.9
    assert math.isnan(table["loss"].tolist()[1])


def test_steps_of_an_earlier_attempt_give_way() -> None:
    first, again = [100, 200, 300], [100, 250]
    events = [reported(step, loss=1.0) for step in first] + [reported(step, loss=2.0) for step in again]
    assert steps_table(events)[["step", "loss"]].to_numpy().tolist() == [[100, 2.0], [250, 2.0]]
    resumed = [reported(step, loss=1.0) for step in first] + [reported(250, loss=2.0)]
    assert steps_table(resumed)["step"].tolist() == [100, 200, 250]


def test_words_in_a_report_stay_words() -> None:
    table = steps_table([reported(1, level="caution", loss="inf"), reported(2)])
    assert table["level"].tolist()[0] == "caution"
    assert math.isinf(table["loss"].tolist()[0])


def test_steps_of_different_seeds_are_apart() -> None:
    other = {**reported(50), "seed": 1}
    assert steps_table([reported(100), other])["step"].tolist() == [100, 50]


def test_no_events_make_empty_tables() -> None:
    assert len(trials_table([])) == 0
    assert steps_table([]).columns.tolist() == ["trial_id", "seed", "step", "phase"]


@pytest.mark.parametrize(
    "event",
    [
        {"event": "started", "seed": 0, "config": {}},
        {"event": "started", **KEY},
        {"event": "finished", **KEY, "result": {}},
        {"event": "finished", **KEY, "state": "done"},
        {"event": "finished", "trial_id": "a", "seed": "zero", "state": "done", "result": {}},
        {"event": "interrupted", **KEY},
        {"event": "lost", "trial_id": "a"},
        {"event": "asked", "number": 1},
    ],
)
def test_an_event_that_lacks_something_is_refused(event: dict[str, object]) -> None:
    with pytest.raises(UserError, match=r"journal is corrupt: .* event has"):
        trials_table([event])


def test_a_killed_driver_leaves_readable_tables(grid60: ResultsFolder, empty: ResultsFolder) -> None:
    content = grid60.journal.path.read_bytes()
    empty.journal.path.write_bytes(content[: len(content) // 2])
    states = empty.trials()["state"].value_counts()
    assert states["done"] > 20
    assert states["running"] == 1
    assert len(empty.steps()) > 60


def test_a_control_is_known_by_its_arm() -> None:
    control = {**STARTED, "trial_id": "lr_x2", "config": {"name": "lr", "steps": 9}, "arm": "lr"}
    table = trials_table([STARTED, control])
    assert table["arm"].tolist() == ["", "lr"]
    assert hybrid_runs(table)["trial_id"].tolist() == [STARTED["trial_id"]]
    assert pd.isna(table["max_predict_steps"].iloc[1])


@pytest.mark.parametrize("value", [1e308, 2.0**63, -1e300])
def test_a_count_that_no_run_reaches_is_a_number_all_the_same(value: float) -> None:
    finished = {"event": "finished", **KEY, "state": "done", "result": {"backward_calls": value}}
    table = trials_table([finished])
    assert pd.to_numeric(table["backward_calls"]).abs().iloc[0] > 2**53
