"""The front equals the brute-force one, and the hypervolume equals its closed form."""

import math
from collections.abc import Callable

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybrid_sweep.analysis.objectives import hypervolume_reference, speedup_column
from hybrid_sweep.analysis.pareto import (
    Rival,
    best_point,
    compared_arms,
    configurations,
    hypervolume,
    pareto_front,
    recommended,
    rivals,
)
from hybrid_sweep.results import ResultsFolder


def table(points: list[tuple[float, float]], **columns: object) -> pd.DataFrame:
    frame = pd.DataFrame(points, columns=["speedup", "quality"])
    ids = [f"t{number:03}" for number in range(len(points))]
    return frame.assign(**{"trial_id": ids, "seed": 0, "state": "done", "behaviour": "", **columns})


coarse = st.sampled_from([0.5, 1.0, 1.5, 2.0, 2.5, math.nan, math.inf])  # coarse, so that ties happen


@given(points=st.lists(st.tuples(coarse, coarse), max_size=25))
def test_front_is_the_brute_force_one(points: list[tuple[float, float]]) -> None:
    front = pareto_front(table(points))
    finite = [point for point in points if all(map(math.isfinite, point))]
    expected = [
        (x, y) for x, y in finite if not any(a >= x and b >= y and (a, b) != (x, y) for a, b in finite)
    ]
    found = list(zip(front["speedup"], front["quality"], strict=True))
    assert found == sorted(expected, reverse=True)
    ids = front["trial_id"].tolist()
    assert all(ids[i] < ids[i + 1] for i in range(len(ids) - 1) if found[i] == found[i + 1])


@given(points=st.lists(st.tuples(st.floats(0, 9), st.floats(0, 2)), max_size=20), seed=st.integers(0, 99))
def test_front_does_not_depend_on_the_order_of_rows(points: list[tuple[float, float]], seed: int) -> None:
    rows = table(points)
    pd.testing.assert_frame_equal(pareto_front(rows), pareto_front(rows.sample(frac=1, random_state=seed)))


def test_only_done_trials_reach_the_front() -> None:
    states = ["diverged", "pruned", "failed", "running", "done"]
    assert pareto_front(table([(9, 9)] * 5, state=states))["trial_id"].tolist() == ["t004"]


def test_an_empty_front_keeps_its_columns() -> None:
    rows = table([(2, 1)], state="failed")
    assert pareto_front(rows).columns.tolist() == rows.columns.tolist()
    assert len(pareto_front(rows)) == 0
    assert hypervolume(rows) == 0


def test_seeds_are_averaged_and_incomplete_configurations_left_out() -> None:
    rows = table([(2, 0.9), (4, 1.0), (9, 9), (9, 9)], seed=[1, 0, 0, 1])
    rows["trial_id"] = ["a", "a", "b", "b"]
    rows["state"] = ["done", "done", "done", "failed"]
    rows["behaviour"] = ["x", "y", "z", ""]
    front = pareto_front(rows)
    assert front[["trial_id", "seed", "behaviour"]].to_numpy().tolist() == [["a", "0,1", "x,y"]]
    assert (front["speedup"][0], front["quality"][0]) == (3, pytest.approx(0.95))
    assert configurations(rows).columns.tolist() == rows.columns.tolist()


def repeated(*seeds: tuple[float, float]) -> pd.DataFrame:
    """Return one configuration "a" with a seed for each pair."""
    return table(list(seeds), seed=range(len(seeds))).assign(trial_id="a")


def test_repeated_configurations_come_with_intervals_of_their_means() -> None:
    front = pareto_front(repeated((2.0, 0.97), (3.0, 0.98), (4.0, 0.99)))
    added = ["seeds", "speedup_low", "speedup_high", "quality_low", "quality_high"]
    assert front.columns.tolist()[-5:] == added
    half = 4.302653 / math.sqrt(3)  # t(2) · s / √n with s = 1
    low, high = front["speedup_low"][0], front["speedup_high"][0]
    assert (front["seeds"][0], low, high) == (3, pytest.approx(3 - half), pytest.approx(3 + half))
    assert front["quality_low"][0] == pytest.approx(0.98 - half / 100)


def test_a_front_of_single_runs_has_no_intervals() -> None:
    rows = table([(2, 1), (3, 0.9)])
    assert pareto_front(rows).columns.tolist() == rows.columns.tolist()


def test_the_intervals_are_those_of_the_front_that_was_asked_for() -> None:
    rows = repeated((2.0, 0.97), (3.0, 0.98), (4.0, 0.99)).assign(speedup_counted=2.5)
    front = pareto_front(rows, "speedup_counted")
    assert (front["speedup_counted_low"][0], front["speedup_counted_high"][0]) == (2.5, 2.5)
    assert "speedup_low" not in front


def test_a_configuration_counts_when_all_its_seeds_are_in() -> None:
    half_done = table([(9.0, 1.1)], seed=0).assign(trial_id="b")
    rows = pd.concat([repeated((2.0, 0.97), (3.0, 0.98)), half_done])
    assert pareto_front(rows)["trial_id"].tolist() == ["a"]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_one_seed_without_numbers_keeps_a_configuration_off_the_front(bad: float) -> None:
    assert pareto_front(repeated((2.0, 0.97), (bad, 0.98))).empty
    assert pareto_front(repeated((2.0, 0.97), (2.0, bad))).empty


def test_settings_are_not_averaged() -> None:
    rows = repeated((2.0, 0.97), (3.0, 0.98), (4.0, 0.99)).assign(confidence_threshold=0.4)
    assert pareto_front(rows)["confidence_threshold"].tolist() == [0.4]


def test_counts_are_averaged_too(sweep: Callable[..., ResultsFolder]) -> None:
    front = pareto_front(sweep(seeds=(0, 1, 2)).trials())
    assert front["seed"].unique().tolist() == ["0,1,2"]
    assert front["backward_calls"].notna().all()


def test_hypervolume_of_a_staircase() -> None:
    steps = 5
    rows = table([(1 + i, 0.9 + steps - i) for i in range(1, steps)])
    assert hypervolume(rows) == pytest.approx(sum(range(1, steps)))


def test_points_at_or_behind_the_reference_add_nothing() -> None:
    rows = table([(3.0, 0.95), (0.5, 5.0), (8.0, 0.9), (1.0, 1.0)])
    assert hypervolume(rows) == pytest.approx(2 * 0.05)
    assert hypervolume(rows, reference=(2.0, 0.90)) == pytest.approx(0.05)


def test_the_axis_and_the_reference_follow_the_manifest(grid60: ResultsFolder) -> None:
    assert speedup_column(grid60.manifest) == "speedup"
    assert speedup_column({"spec": {"timing": "counted"}}) == "speedup_counted"
    assert speedup_column({"pack": {"size": 8}}) == "speedup_counted"
    assert speedup_column({"pack": {"size": 1}}) == "speedup"
    assert speedup_column({}) == "speedup"
    assert hypervolume_reference({"hypervolume_reference": {"speedup": 2, "quality": 0.5}}) == (2.0, 0.5)
    assert hypervolume_reference({}) == (1.0, 0.90)


def test_a_point_has_a_rival_where_a_control_is_as_fast_and_as_good(
    grid60: ResultsFolder, controlled: Callable[..., pd.DataFrame]
) -> None:
    trials = controlled([1.3, 1.2, 0.1]).assign(quality_vs_lr_matched=1.5)
    front = pareto_front(trials)
    found = rivals(front, trials)
    slow = front.loc[front["speedup"] < 2, "trial_id"]
    between = front.loc[front["speedup"].between(2.01, 2.99), "trial_id"]
    fast = front.loc[front["speedup"] > 3, "trial_id"]
    assert len(fast) and not set(fast) & set(found)
    assert all(found[point] == Rival("lr_x2", "lr", 2.0, 1.3) for point in slow)
    assert all(found[point] == Rival("lr_x3", "lr", 3.0, 1.2) for point in between)
    assert compared_arms(trials) == {"lr", "lr_matched"}


@pytest.mark.parametrize("kind", ["loss_ratio", "loss_gap"])
def test_a_better_twin_is_a_rival(grid60: ResultsFolder, kind: str) -> None:
    trials = grid60.trials().assign(quality_vs_lr_matched=1.5)
    front = pareto_front(trials)
    first = front.iloc[0]
    trials.loc[trials["trial_id"] == first["trial_id"], "quality_vs_lr_matched"] = 0.8
    (found,) = rivals(pareto_front(trials), trials, kind=kind).items()
    twin = first["quality"] / 0.8 if kind == "loss_ratio" else 0.2 + first["quality"]
    assert found == (
        first["trial_id"],
        Rival("lr_matched", "lr_matched", first["speedup"], pytest.approx(twin)),
    )


def test_ablations_are_no_rivals_for_they_predict_too(
    grid60: ResultsFolder, controlled: Callable[..., pd.DataFrame]
) -> None:
    trials = controlled([9.0, 9.0], arm="ablation").assign(quality_vs_lr_matched=float("nan"))
    assert rivals(pareto_front(trials), trials) == {}
    assert compared_arms(trials) == set()


def test_an_unbeaten_point_is_recommended_before_a_faster_one(grid60: ResultsFolder) -> None:
    trials = grid60.trials().assign(quality_vs_lr_matched=1.5)
    front = pareto_front(trials)
    good = front[front["quality"] >= 0.98]
    assert len(good) > 1
    first, second = good["trial_id"].iloc[:2]
    assert recommended(trials)["trial_id"] == first
    trials.loc[trials["trial_id"] == first, "quality_vs_lr_matched"] = 0.8
    assert recommended(trials)["trial_id"] == second
    assert best_point(front, beaten=list(good["trial_id"]))["trial_id"] == first  # there is no other
