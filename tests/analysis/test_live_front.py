"""The live front is that of the tables, whatever the order in which runs end."""

import math

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybrid_sweep.analysis.live_front import LiveFront
from hybrid_sweep.analysis.pareto import hypervolume, pareto_front

REFERENCE = (1.0, 0.5)
eighths = st.sampled_from([number / 8 for number in range(4, 25)])  # coarse, for ties, and exact in means
results = st.tuples(st.sampled_from(["done", "done", "done", "diverged", "failed"]), eighths, eighths)


@st.composite
def sweeps(draw: st.DrawFn) -> tuple[int, list[tuple[str, int, str, float, float]]]:
    repeats = draw(st.sampled_from([1, 2, 4]))
    points = draw(st.integers(0, 12))
    runs = [(f"t{point}", seed, *draw(results)) for point in range(points) for seed in range(repeats)]
    return repeats, draw(st.permutations(runs))


@settings(deadline=None)
@given(sweeps())
def test_it_is_the_front_of_the_table(sweep: tuple[int, list[tuple[str, int, str, float, float]]]) -> None:
    repeats, runs = sweep
    live = LiveFront(REFERENCE, repeats)
    for trial_id, _, state, speedup, quality in runs:
        live.add(trial_id, state, speedup, quality)
    table = pd.DataFrame(runs, columns=["trial_id", "seed", "state", "speedup", "quality"])
    front = pareto_front(table)
    assert [(p.trial_id, p.speedup, p.quality) for p in live.points] == list(
        zip(front["trial_id"], front["speedup"], front["quality"], strict=True)
    )
    assert live.hypervolume == pytest.approx(hypervolume(table, REFERENCE))
    assert live.ended * repeats == len(runs)


def live_front(*points: tuple[float, float], repeats: int = 1) -> LiveFront:
    live = LiveFront((1.0, 0.0), repeats)
    for number, (speedup, quality) in enumerate(points):
        live.add(f"t{number}", "done", speedup, quality)
    return live


@given(st.lists(st.tuples(st.floats(0.5, 3), st.floats(0.5, 1.5)), max_size=30))
def test_it_dominates_as_much_as_the_table_of_all_its_points(points: list[tuple[float, float]]) -> None:
    rows = [(f"t{number}", 0, "done", *point) for number, point in enumerate(points)]
    table = pd.DataFrame(rows, columns=["trial_id", "seed", "state", "speedup", "quality"])
    dominated = hypervolume(table, (1.0, 0.0))
    assert live_front(*points).hypervolume == pytest.approx(dominated, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("n", [1, 2, 7])
def test_a_staircase_dominates_what_the_closed_form_says(n: int) -> None:
    stairs = [(step + 2.0, float(n - step)) for step in range(n)]
    assert live_front(*stairs).hypervolume == n**2 - n * (n - 1) / 2


def test_only_points_that_add_area_make_it_grow() -> None:
    live = LiveFront((1.0, 0.9))
    points = [(1.0, 1.0), (2.0, 0.5), (2.0, 1.0), (2.0, 1.0), (1.5, 0.95), (3.0, 0.95)]
    grown = []
    for number, point in enumerate(points):
        live.add(f"t{number}", "done", *point)
        grown.append(live.growth(1) > 0)
    assert grown == [False, False, True, False, False, True]
    assert live.hypervolume == pytest.approx(0.1 + 0.05)


def test_a_point_counts_when_all_its_seeds_are_in_on_means() -> None:
    live = LiveFront((1.0, 0.0), repeats=2)
    live.add("a", "done", 2.0, 0.9)
    assert (live.ended, live.points, live.seeds_in("a")) == (0, [], 1)
    live.add("a", "done", 4.0, 1.0)
    assert [(point.speedup, point.quality) for point in live.points] == [(3.0, pytest.approx(0.95))]
    assert (live.ended, live.seeds_in("a")) == (1, 0)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_keeps_a_point_off(bad: float) -> None:
    live = LiveFront((1.0, 0.0), repeats=2)
    live.add("a", "done", 2.0, 0.9)
    live.add("a", "done", bad, bad)
    assert (live.ended, live.points) == (1, [])


def test_a_pruned_seed_ends_its_point() -> None:
    live = LiveFront((1.0, 0.0), repeats=3)
    live.add("a", "done", 2.0, 0.9)
    live.add("a", "pruned", 2.0, 0.9)
    assert (live.ended, live.seeds_in("a")) == (1, 3)
    live.add("a", "done", 2.0, 0.9)  # it was under way
    assert (live.ended, live.points) == (1, [])


def test_the_slope_is_the_growth_over_the_last_ten_or_the_last_fifth() -> None:
    assert live_front().slope is None
    assert live_front((3.0, 0.5)).slope == 1.0
    grown = [(2.0 + number, 1.0) for number in range(8)]
    flat = [(1.5, 0.5)] * 6
    assert live_front(*grown, *flat).window == 10
    assert live_front(*grown, *flat).slope == pytest.approx(4 / 10)
    assert live_front(*grown, *flat).growth(6) == 0
    assert live_front(*[(2.0, 1.0)] * 100).window == 20
    assert live_front(*[(2.0, 1.0)] * 100).slope == 0
    assert live_front(*grown).growth(99) == live_front(*grown).hypervolume
