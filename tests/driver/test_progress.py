import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from hybrid_sweep.driver.events import (
    Note,
    SweepEnded,
    SweepStarted,
    TrialFinished,
    TrialReported,
    TrialStarted,
)
from hybrid_sweep.driver.progress import SweepProgress, Tally, clock_text
from hybrid_sweep.spec import load_spec


def started(total=4, slots=2):
    return SweepStarted(total=total, folder=Path("results/x"), slots=slots)


def finished(trial_id, speedup=2.0, quality=0.99, state="done", reason="", seed=0):
    result = {} if state == "failed" else {"speedup": speedup, "speedup_counted": 9.0, "quality": quality}
    return TrialFinished(trial_id, seed, state, reason, result)


def tally(*events):
    """Return a tally that saw the events, one second apart from time 0."""
    kept = Tally("speedup", (1.0, 0.90))
    for now, event in enumerate(events):
        kept.apply(event, float(now))
    return kept


class Screen:
    """Progress with a clock that the test turns, and what it wrote."""

    def __init__(self, live, **overrides):
        self.now = 0.0
        self.file = io.StringIO()
        console = Console(file=self.file, force_terminal=live, width=100, color_system=None)
        spec = load_spec("quick", overrides)
        self.progress = SweepProgress(spec, console, live=live, clock=lambda: self.now)

    def show(self, *events, seconds=0.0):
        for event in events:
            self.progress(event)
            self.now += seconds

    @property
    def text(self):
        return self.file.getvalue()

    @property
    def lines(self):
        return self.text.splitlines()


def test_the_best_are_the_fastest_of_good_quality_and_the_best_quality():
    kept = tally(
        started(),
        finished("fast_and_bad", 9.0, 0.90),
        finished("good", 2.0, 0.99),
        finished("faster", 3.0, 0.98),
        finished("best", 1.1, 1.01),
    )
    assert kept.fastest["trial_id"] == "faster"
    assert kept.best["trial_id"] == "best"


@pytest.mark.parametrize("state", ["diverged", "pruned", "failed"])
def test_only_a_run_that_is_done_can_be_the_best(state):
    kept = tally(started(), finished("x", 5.0, 1.0, state))
    assert kept.fastest is None
    assert kept.best is None
    assert kept.hypervolume == 0.0
    assert kept.counts == {state: 1}


def test_a_result_without_numbers_is_counted_and_never_the_best():
    kept = tally(started(), TrialFinished("x", 0, "done", "", {"speedup": None, "quality": 1.0}))
    assert kept.finished == 1
    assert kept.best is None


def test_the_hypervolume_is_that_of_the_front():
    kept = tally(
        started(), finished("a", 2.0, 1.0), finished("b", 3.0, 0.95), finished("dominated", 1.5, 0.92)
    )
    assert kept.hypervolume == pytest.approx(1.0 * 0.10 + 1.0 * 0.05)


def test_a_counted_sweep_is_told_by_its_counted_speedup():
    screen = Screen(live=False, timing="counted")
    screen.show(started(), finished("a"))
    assert screen.progress.tally.fastest["speedup"] == 9.0


def test_the_time_left_is_the_work_left_shared_by_the_slots():
    kept = Tally("speedup", (1.0, 0.90))
    kept.apply(started(total=6, slots=2), 0)
    assert kept.seconds_left(0) is None
    kept.apply(TrialStarted("a", 0), 0)
    kept.apply(TrialStarted("b", 0), 0)
    kept.apply(finished("a"), 10)
    kept.apply(finished("b"), 10)
    assert kept.seconds_a_trial == 10
    kept.apply(TrialStarted("c", 0), 10)
    kept.apply(TrialStarted("d", 0), 10)
    assert kept.seconds_left(14) == pytest.approx((6 + 6 + 10 + 10) / 2)
    for trial in "cdef":
        kept.apply(finished(trial), 30)
    assert kept.seconds_left(30) == 0.0


@given(st.lists(st.tuples(st.integers(1, 50), st.floats(0, 100)), max_size=20), st.integers(1, 8))
def test_the_time_left_is_never_negative(runs, slots):
    kept = Tally("speedup", (1.0, 0.90))
    kept.apply(started(total=len(runs) + 3, slots=slots), 0.0)
    for index, (_, seconds) in enumerate(runs):
        kept.apply(TrialStarted(f"t{index}", 0), 0.0)
        kept.apply(finished(f"t{index}", state="failed"), seconds)
    left = kept.seconds_left(1e6)
    assert left is None or left >= 0


def test_a_run_that_was_never_seen_to_start_still_counts():
    kept = tally(started(), TrialReported("a", 0, {"step": 5}), finished("a"), finished("b"))
    assert kept.finished == 2
    assert not kept.running


def test_plain_lines_come_at_most_every_few_seconds_and_the_last_always():
    screen = Screen(live=False)
    screen.show(started(total=40))
    screen.show(
        *(event for i in range(40) for event in (TrialStarted(f"t{i}", 0), finished(f"t{i}"))), seconds=0.25
    )
    lines = [line for line in screen.lines if " | " in line]
    assert 5 <= len(lines) <= 8
    assert lines[0].startswith("1/40 | 1 done")
    assert lines[-1].startswith("40/40 | 40 done")
    assert "fastest at quality >= 0.98: t0 2.00× quality 0.990" in lines[-1]
    assert "hypervolume 0.0900" in lines[-1]
    assert "left" in lines[1]


def test_plain_lines_name_the_folder_the_notes_and_every_failure():
    screen = Screen(live=False)
    screen.show(
        started(),
        Note("measuring [the] reference"),
        finished("a"),
        finished("b", state="failed", reason="RuntimeError: no [memory]"),
        finished("c", state="diverged"),
        SweepEnded({"done": 1}, False),
    )
    assert screen.lines[0] == "quick: 4 runs, 2 at a time, results in results/x"
    assert screen.lines[1] == "measuring [the] reference"
    assert "b failed: RuntimeError: no [memory]" in screen.lines
    assert screen.lines[-1] == "Took 0:00, hypervolume 0.0900."
    assert "\x1b" not in screen.text


def test_the_live_display_shows_counts_bests_and_what_runs():
    screen = Screen(live=True, repeats=2)
    with screen.progress:
        screen.show(started(), TrialStarted("a", 0), TrialStarted("b", 1), seconds=1.0)
        screen.show(TrialReported("b", 1, {"step": 120, "phase": "full", "loss": 0.5, "quality": 0.97}))
        screen.show(finished("a", 2.5, 0.99))
        console = Console(file=io.StringIO(), width=100, color_system=None)
        console.print(screen.progress)
        shown = console.file.getvalue()
    assert "1/4" in shown
    assert "1 done  1 running  0 diverged  0 failed" in shown
    assert "fastest at quality ≥ 0.98  a seed 0 2.50× quality 0.990" in shown
    assert "hypervolume                0.1350" in shown
    assert "b seed 1  full  step 120  loss 0.5000  quality 0.970  –×" in shown
    assert "left" in shown


def test_the_live_display_tells_failures_above_itself_and_ends_clean():
    screen = Screen(live=True)
    screen.show(started(), finished("b", state="failed", reason="RuntimeError: no memory"))
    screen.show(SweepEnded({"failed": 1}, False))
    assert "b failed: RuntimeError: no memory" in screen.text
    assert screen.lines[-1].endswith("Took 0:00, hypervolume 0.0000.")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0:00"), (59.6, "1:00"), (65, "1:05"), (7265, "2:01:05")]
)
def test_durations_read_as_a_clock(seconds, text):
    assert clock_text(seconds) == text
