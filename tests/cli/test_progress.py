import io
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from hybrid_sweep.cli.progress import SweepProgress, SweepProgressState
from hybrid_sweep.driver.events import (
    Note,
    Preparing,
    SlotsChanged,
    SweepEnded,
    SweepStarted,
    TrialFinished,
    TrialLost,
    TrialReported,
    TrialStarted,
    Waiting,
)
from hybrid_sweep.spec.files import load_spec


def started(total=4, slots=2, done=0):
    return SweepStarted(total=total, folder=Path("results/x"), slots=slots, done=done)


def finished(trial_id, speedup=2.0, quality=0.99, state="done", reason="", seed=0):
    result = {} if state == "failed" else {"speedup": speedup, "speedup_counted": 9.0, "quality": quality}
    return TrialFinished(trial_id, seed, state, reason, result)


def tally(*events, repeats=1):
    """Return a tally that saw the events, one second apart from time 0."""
    kept = SweepProgressState("speedup", (1.0, 0.90), repeats)
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
    def drawn(self):
        """What the live display shows now."""
        console = Console(file=io.StringIO(), width=100, color_system=None)
        console.print(self.progress)
        return console.file.getvalue()

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
    assert kept.fastest.trial_id == "faster"
    assert kept.best.trial_id == "best"


@pytest.mark.parametrize("state", ["diverged", "pruned", "failed"])
def test_only_a_run_that_is_done_can_be_the_best(state):
    kept = tally(started(), finished("x", 5.0, 1.0, state))
    assert kept.fastest is None
    assert kept.best is None
    assert kept.front.hypervolume == 0.0
    assert kept.counts == {state: 1}


def test_a_result_without_numbers_is_counted_and_never_the_best():
    kept = tally(started(), TrialFinished("x", 0, "done", "", {"speedup": None, "quality": 1.0}))
    assert kept.finished == 1
    assert kept.best is None


def test_the_hypervolume_is_that_of_the_front():
    kept = tally(
        started(), finished("a", 2.0, 1.0), finished("b", 3.0, 0.95), finished("dominated", 1.5, 0.92)
    )
    assert kept.front.hypervolume == pytest.approx(1.0 * 0.10 + 1.0 * 0.05)


def test_a_counted_sweep_is_told_by_its_counted_speedup():
    screen = Screen(live=False, timing="counted")
    screen.show(started(), finished("a"))
    assert screen.progress.tally.fastest.speedup == 9.0


def test_the_time_left_is_the_work_left_shared_by_the_slots():
    kept = SweepProgressState("speedup", (1.0, 0.90))
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
    kept = SweepProgressState("speedup", (1.0, 0.90))
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
    screen = Screen(live=True)
    with screen.progress:
        screen.show(started(), TrialStarted("a", 0), TrialStarted("b", 0), seconds=1.0)
        screen.show(TrialReported("b", 0, {"step": 120, "phase": "full", "loss": 0.5, "quality": 0.97}))
        assert "no point on the front yet" in screen.drawn
        screen.show(finished("a", 2.5, 0.99))
        shown = screen.drawn
    assert "1/4" in shown
    assert "1 done  1 running  0 diverged  0 failed" in shown
    assert words("a 2.50× 0.990 fastest at quality ≥ 0.98, best quality") in words(shown)
    assert "hypervolume 0.1350, +0.1350 a point over the last 1" in shown
    assert "b  full  step 120  loss 0.5000  quality 0.970  –×" in shown
    assert "left" in shown


def words(text):
    return " ".join(text.split())


def test_a_point_is_shown_when_all_its_seeds_are_in():
    screen = Screen(live=True, repeats=2)
    with screen.progress:
        screen.show(started(), TrialStarted("a", 0), finished("a", 2.0, 1.00))
        assert "no point on the front yet" in screen.drawn
        screen.show(TrialStarted("a", 1))
        assert "a seed 1  starting" in screen.drawn
        screen.show(finished("a", 3.0, 0.98, seed=1))
        assert "front of 1, means of 2 seeds" in screen.drawn
        assert words("a 2.50× 0.990 fastest") in words(screen.drawn)


def front_rows(screen):
    """Return the ids and marks of the front's rows on the display."""
    lines = screen.drawn.split("front of")[1].split("hypervolume")[0].splitlines()[1:]
    return [line.split()[0] for line in lines if "×" in line]


def test_a_long_front_is_shown_around_its_fastest_good_point():
    screen = Screen(live=True)
    with screen.progress:
        screen.show(started(total=20))
        points = [(f"t{n}", 9.0 - n, 0.90 + 0.01 * n) for n in range(9)]  # t8 is the first good one
        screen.show(*(finished(*point) for point in points))
        assert front_rows(screen) == ["t4", "t5", "t6", "t7", "t8"]
        assert "and 4 more" in screen.drawn
        screen.show(*(finished(f"u{n}", 0.9 - 0.1 * n, 0.99 + 0.01 * n) for n in range(6)))
        assert front_rows(screen) == ["t8", "u0", "u1", "u2", "u5"]
        assert words("u5 0.40× 1.040 best quality") in words(screen.drawn)


@given(st.integers(0, 12), st.integers(0, 12))
def test_every_row_of_the_front_is_shown_once(bad, good):
    screen = Screen(live=True)
    screen.show(*(finished(f"b{n}", 30.0 - n, 0.80 + 0.01 * n) for n in range(bad)))
    screen.show(*(finished(f"g{n}", 15.0 - n, 0.98 + 0.01 * n) for n in range(good)))
    if bad + good:
        rows = front_rows(screen)
        assert len(rows) == len(set(rows)) == min(bad + good, 5)
        assert rows[-1] == (f"g{good - 1}" if good else f"b{bad - 1}")
        assert not good or "g0" in rows


def test_a_lost_run_waits_for_its_next_try():
    screen = Screen(live=False)
    screen.show(started(), TrialStarted("a", 0), TrialLost("a", 0, "its node died", 4.0))
    kept = screen.progress.tally
    assert (kept.running, kept.lost, kept.finished) == ({}, 1, 0)
    assert screen.lines[-1] == "a lost: its node died; tried again in 4 s"
    screen.now = 10.0
    screen.show(TrialStarted("a", 0))
    screen.now = 12.0
    screen.show(finished("a"))
    assert kept.seconds_a_trial == 2.0
    assert "1 lost and tried again" in screen.lines[-1]


def test_slots_come_and_go():
    screen = Screen(live=False)
    screen.show(started(slots=2), SlotsChanged(2), SlotsChanged(1))
    assert screen.lines[1:] == ["1 at a time from now on"]
    assert screen.progress.tally.slots == 1


def test_what_ended_before_a_resume_counts_in_silence():
    screen = Screen(live=False)
    screen.show(finished("a"), finished("b", state="failed", reason="boom"), seconds=1.0)
    assert screen.text == ""
    screen.show(started(total=5, done=2))
    assert screen.lines == ["quick: 5 runs, 2 of them ended before, 2 at a time, results in results/x"]
    kept = screen.progress.tally
    assert (kept.finished, kept.front.ended, kept.seconds_a_trial) == (2, 2, None)


def test_an_interrupted_run_is_no_point_of_the_front():
    kept = tally(started(), TrialFinished("a", 0, "pruned", "interrupted", {"speedup": 2, "quality": 1}))
    assert (kept.counts["pruned"], kept.front.ended) == (1, 0)


def test_the_other_seeds_of_a_pruned_point_are_not_waited_for():
    kept = tally(
        started(total=8), TrialStarted("a", 0), TrialStarted("a", 1), finished("a", state="pruned"), repeats=4
    )
    kept.apply(finished("a", seed=1), 9)  # it was under way
    assert (kept.total, kept.finished) == (6, 2)
    assert kept.front.ended == 1


def test_memory_hardly_grows_with_the_trials():
    kept = SweepProgressState("speedup", (1.0, 0.90), repeats=2)

    def run(first, last):
        for number in range(first, last):
            for seed in (0, 1):
                kept.apply(TrialStarted(f"t{number}", seed), number)
                kept.apply(finished(f"t{number}", 2.0 + (number % 7) / 7, 0.99, seed=seed), number + 1)

    run(0, 500)
    tracemalloc.start()
    try:
        run(500, 2500)
        grown, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert grown < 2000 * 100  # bytes; a result alone is ten times that


def test_the_live_display_tells_failures_above_itself_and_ends_clean():
    screen = Screen(live=True)
    screen.show(started(), finished("b", state="failed", reason="RuntimeError: no memory"))
    screen.show(SweepEnded({"failed": 1}, False))
    assert "b failed: RuntimeError: no memory" in screen.text
    assert screen.lines[-1].endswith("Took 0:00, hypervolume 0.0000.")


def test_a_control_counts_as_a_run_and_not_as_a_point():
    control = TrialFinished("lr_x2", 0, "done", "", {"speedup": 9.0, "quality": 9.0}, "lr")
    kept = tally(started(total=2), finished("a"), control)
    assert (kept.finished, kept.total, kept.front.ended) == (2, 2, 1)
    assert [point.trial_id for point in kept.front.points] == ["a"]


WHAT = ("steps of plain training, seed 0: 40 of 900", "unit costs")


class TestThereIsASignOfLife:
    def test_while_what_trials_need_is_prepared(self):
        screen = Screen(live=False)
        screen.show(*[Preparing(WHAT)] * 61, seconds=1.0)
        assert len(screen.lines) == 4
        assert screen.lines[1] == f"{WHAT[0]}; {WHAT[1]} (0:30 so far)"

    def test_in_place_in_a_terminal(self):
        screen = Screen(live=True)
        with screen.progress:
            screen.show(Preparing(WHAT))
            assert [line.rstrip() for line in screen.drawn.splitlines()] == [*WHAT, "0:00 so far"]
            screen.show(started())
            assert WHAT[0] not in screen.drawn

    @pytest.mark.parametrize("event", [Waiting(), TrialReported("a", 0, {"step": 30})])
    def test_while_no_run_ends(self, event):
        screen = Screen(live=False)
        screen.show(started(), TrialStarted("a", 0), TrialReported("a", 0, {"step": 30}))
        before = len(screen.lines)
        screen.show(*[event] * 61, seconds=1.0)
        assert len(screen.lines) == before + 4
        assert screen.lines[-1].startswith("0/4 | a at step 30 | 1 running")


def test_an_interrupt_before_the_first_trial_is_told():
    screen = Screen(live=False)
    with pytest.raises(KeyboardInterrupt), screen.progress:
        screen.show(Note("plain training"))
        raise KeyboardInterrupt
    assert screen.lines[-1] == "Interrupted before the first trial: nothing was written."
