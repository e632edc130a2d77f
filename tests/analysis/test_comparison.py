import json
import math

import numpy as np
import pandas as pd
import pytest

from hybrid_sweep.analysis.comparison import PAIR_COLUMNS, Confirmation, comparisons, geometric_mean, ratio
from hybrid_sweep.analysis.intervals import bootstrap_interval
from hybrid_sweep.errors import UserError

NEVER = math.inf


def pair(seed, needs=4.0, hybrid_needs=1.0, arm="reference", trial_id="H100", **changes):
    row = {
        "trial_id": trial_id,
        "arm": arm,
        "what": "your recipe",
        "outermost": "",
        "seed": seed,
        "target_loss": 0.3,
        "seconds_to_target": needs,
        "hybrid_seconds_to_target": hybrid_needs,
        "seconds": 5.0,
        "hybrid_seconds": 1.25,
        "backward_calls": 2345,
        "hybrid_backward_calls": 800,
        "test_loss": 0.31,
        "hybrid_test_loss": 0.30,
        "quality": 1.03,
        "val_quality": 1.05,
        "equal_time_steps": 850,
        "equal_time_test_loss": 0.305,
        "equal_time_quality": 1.02,
    }
    assert set(row) == set(PAIR_COLUMNS)
    return {**row, **changes}


def only(*pairs):
    (row,) = comparisons(pd.DataFrame(pairs)).to_dict("records")
    return row


def test_paired_ratios_are_averaged_as_ratios():
    row = only(pair(5, 2.0), pair(6, 8.0), pair(7, 4.0))
    assert row["speedup_to_target"] == pytest.approx(4.0)
    assert row["speedup_whole_run"] == pytest.approx(4.0)
    assert (row["seeds"], row["reached"], row["hybrid_reached"]) == (3, 3, 3)
    assert 2.0 <= row["speedup_to_target_low"] < 4.0 < row["speedup_to_target_high"] <= 8.0
    assert not row["at_least"]


def test_a_seed_that_begins_below_the_target_speaks_for_no_one():
    row = only(pair(5, 0.0, 0.0), pair(6, 8.0), pair(7, 8.0))
    assert row["speedup_to_target"] == pytest.approx(4.0)


def test_a_ratio_and_its_inverse_agree():
    forth, back = geometric_mean([2.0, 3.0, 5.0]), geometric_mean([1 / 2, 1 / 3, 1 / 5])
    assert back.value == pytest.approx(1 / forth.value)
    assert back.low == pytest.approx(1 / forth.high, rel=0.02)


def test_pairing_takes_out_what_a_seed_does_to_both():
    row = only(*(pair(seed, 4.0 * scale, scale) for seed, scale in enumerate((0.5, 1.0, 2.0))))
    assert row["speedup_to_target_low"] == pytest.approx(4.0) == row["speedup_to_target_high"]


def test_a_control_that_never_reaches_the_target_is_infinite_and_not_dropped():
    row = only(pair(5), pair(6), pair(7, NEVER))
    assert row["at_least"]
    assert row["speedup_to_target"] == pytest.approx((4 * 4 * 5) ** (1 / 3))
    assert row["speedup_to_target_high"] == math.inf
    assert str(ratio(row, "speedup_to_target")).startswith(">4.31× [4.0")
    assert row["reached"] == 2


@pytest.mark.parametrize("needs", [4.0, NEVER])
def test_a_hybrid_that_misses_the_target_once_has_won_nothing(needs):
    row = only(pair(5), pair(6), pair(7, needs, NEVER))
    assert row["speedup_to_target"] == 0
    assert row["speedup_to_target_low"] == 0
    assert not row["at_least"]
    assert row["hybrid_reached"] == 2


def test_a_diverged_hybrid_counts_as_quality_zero_and_a_diverged_control_as_infinite():
    lost = only(pair(5), pair(6), pair(7, quality=0.0))
    assert lost["quality"] == pytest.approx(2.06 / 3)
    won = only(pair(5), pair(6), pair(7, quality=math.inf))
    assert won["quality"] == won["quality_high"] == math.inf


def test_every_point_and_control_has_its_row():
    rows = [
        pair(s, arm=arm, trial_id=t)
        for t in ("H100", "H050")
        for arm in ("reference", "tuned")
        for s in (5, 6)
    ]
    table = comparisons(pd.DataFrame(rows))
    assert list(zip(table["trial_id"], table["arm"], strict=True)) == [
        ("H100", "reference"),
        ("H100", "tuned"),
        ("H050", "reference"),
        ("H050", "tuned"),
    ]


def test_the_interval_holds_the_mean_as_often_as_it_says():
    values = np.random.default_rng(3).normal(size=(400, 5))
    ends = np.array([bootstrap_interval(row) for row in values])
    held = ((ends[:, 0] < 0) & (ends[:, 1] > 0)).mean()
    assert 0.88 < held < 0.97


def test_the_interval_is_the_same_again_and_of_one_value_unknown():
    assert bootstrap_interval([1.0, 2.0, 4.0]) == bootstrap_interval([1.0, 2.0, 4.0])
    assert all(math.isnan(end) for end in bootstrap_interval([1.0]))


def confirmation(**changes):
    table = comparisons(pd.DataFrame([pair(5), pair(6), pair(7, NEVER)]))
    table = table.assign(explored_speedup=4.2, explored_quality=1.1)
    values = {"seeds": [5, 6, 7], "min_quality": 0.98, "left_out": ["H050"], "tried": 40, "table": table}
    values["configurations"] = 60
    return Confirmation(**{**values, **changes})


def test_a_confirmation_comes_back_as_it_was_written(tmp_path):
    written = confirmation()
    written.write(tmp_path)
    read = Confirmation.read(tmp_path)
    assert (read.seeds, read.min_quality, read.left_out) == ([5, 6, 7], 0.98, ["H050"])
    assert (read.tried, read.configurations) == (40, 60)
    assert read.points == ["H100"]
    assert read.rows("H100")["reference"] == pytest.approx(written.rows("H100")["reference"])
    assert len(pd.read_csv(tmp_path / "confirmed.csv")) == 1


def test_luck_is_what_the_fresh_seeds_did_not_show_again():
    table = confirmation().table.assign(explored_speedup=5.0, explored_quality=1.1)
    speed, quality = confirmation(table=table).luck()
    assert speed == pytest.approx(4.0 / 5.0 - 1)
    assert quality == pytest.approx(1.05 - 1.1)


def test_there_is_no_confirmation_before_it_is_written(tmp_path):
    assert Confirmation.read(tmp_path) is None


def test_a_confirmation_of_another_version_is_told_too(tmp_path):
    confirmation(table=confirmation().table.drop(columns="backward_calls")).write(tmp_path)
    with pytest.raises(UserError, match=r"confirmed\.json is corrupt .*backward_calls.*run confirm again"):
        Confirmation.read(tmp_path)


@pytest.mark.parametrize(
    ("name", "value"),
    [("seeds", None), ("reached", -1), ("backward_calls", 0.5), ("outermost", "widest"), ("quality", "good")],
)
def test_a_row_that_no_comparison_writes_is_told_by_its_field(tmp_path, name, value):
    confirmation().write(tmp_path)
    file = tmp_path / "confirmed.json"
    values = json.loads(file.read_text())
    values["comparisons"][0][name] = value
    file.write_text(json.dumps(values))
    with pytest.raises(UserError, match=rf"confirmed\.json is corrupt \(comparisons\.0\.{name}="):
        Confirmation.read(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '{"comparisons": []}', '{"seeds": 3}'])
def test_a_damaged_confirmation_is_told_in_a_sentence(tmp_path, text):
    (tmp_path / "confirmed.json").write_text(text)
    with pytest.raises(UserError, match=r"confirmed\.json is corrupt .*run confirm again"):
        Confirmation.read(tmp_path)


def test_a_point_that_misses_the_target_has_no_ratio_of_times():
    row = {"speedup_to_target": 0.0, "speedup_to_target_low": 0.0, "speedup_to_target_high": 2.04}
    row |= {"speedup_whole_run": 1.87, "speedup_whole_run_low": 1.8, "speedup_whole_run_high": 1.9}
    row |= {"seeds": 5.0, "hybrid_reached": 4.0, "at_least": False}
    assert str(ratio(row, "speedup_to_target")) == "misses the target on 1 of 5 seeds"
    assert str(ratio(row, "speedup_whole_run")) == "1.87× [1.80, 1.90]"
