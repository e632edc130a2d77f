"""The loop on a virtual clock: slots, retries, early stopping, flat fronts, and interruption."""

import json
import signal
from dataclasses import replace

import pytest

from hybrid_sweep.analysis.status import sweep_status
from hybrid_sweep.driver.backend import Reported
from hybrid_sweep.driver.events import (
    Note,
    SweepStarted,
    TrialFinished,
    TrialLost,
    TrialReported,
    TrialStarted,
)
from hybrid_sweep.driver.sweep import begin, carry_on, recorded_spec, replayed, run_timeout
from hybrid_sweep.errors import UserError
from hybrid_sweep.report.front_data import front_picture
from hybrid_sweep.results import ResultsFolder
from hybrid_sweep.search.controls import ABLATIONS
from hybrid_sweep.simulation.backend import NodeLoss, SimulatedBackend, SimulatedRun, Timing, WorkerDeath
from hybrid_sweep.simulation.recorded import RecordedRuns
from hybrid_sweep.spec.sweep import SweepSpec
from hybrid_sweep.store.journal import Journal

TIMING = Timing(checkpoint_seconds=0.0)


def outcome(run):
    horizon = run.config["max_predict_steps"]
    worth = {"speedup_counted": 1 + horizon / 100, "quality": 1.1 - horizon / 1000}
    reports = tuple((float(i), {"step": 25 * i, "backward_calls": 10 * i, **worth}) for i in range(1, 5))
    return SimulatedRun(reports=reports, result={**worth, "steps": 100})


@pytest.fixture
def sweep(tmp_path):
    """Begin a sweep; return a function that carries it on, and what was told."""

    def make(slots=2, outcome=outcome, faults=(), name="x", **fields):
        spec = SweepSpec(
            **{
                "name": name,
                "workload": "a.b:C",
                "timing": "counted",
                "trainer": {"warmup_steps": 1},
                "space": {"max_predict_steps": [10, 20, 30, 40, 50, 60]},
                "sampler": "grid",
                "controls": "none",
                **fields,
            }
        )
        folder, told = ResultsFolder(begin(tmp_path / name, spec, 100, {}).path), []

        def sit(on_event=told.append, **options):
            backend = SimulatedBackend(outcome, slots, timing=TIMING, faults=list(faults))
            return carry_on(
                folder, recorded_spec(folder), lambda: backend, on_event, finish=lambda _: None, **options
            )

        return sit, told, folder

    return make


def states(folder):
    return dict(folder.trials()["state"].value_counts())


def test_everything_is_run_once(sweep):
    sit, told, folder = sweep(repeats=2)
    assert sit().counts == {"done": 12}
    assert sum(isinstance(event, TrialStarted) for event in told) == 12
    assert folder.manifest["budget"] == 6
    assert sit().counts == {"done": 12}


@pytest.mark.parametrize(("retries", "state"), [(1, "done"), (0, "failed")])
def test_a_run_whose_worker_died_is_tried_again_as_often_as_allowed(sweep, retries, state):
    sit, told, folder = sweep(slots=1, faults=[WorkerDeath(at=1.5, slot=0)], max_retries=retries)
    sit()
    first = folder.trials().iloc[0]
    assert first["state"] == state
    assert states(folder).get("done", 0) == 6 - (state == "failed")
    assert sum(isinstance(event, TrialLost) for event in told) == retries


def hangs(attempts, at=3):
    """Return outcomes of which one point's runs hang before their third report, `attempts` times."""

    def hanging(run):
        whole = outcome(run)
        if run.config["max_predict_steps"] != 30 or run.attempt > attempts:
            return whole
        reports = [(s + 3e4 * (i >= at - 1), report) for i, (s, report) in enumerate(whole.reports)]
        return SimulatedRun(reports=tuple(reports), result=whole.result)

    return hanging


def test_a_run_that_hangs_is_lost_and_goes_on_from_its_checkpoint(sweep):
    sit, told, folder = sweep(outcome=hangs(1), trial_timeout=50)
    assert sit().counts == {"done": 6}
    (lost,) = (event for event in told if isinstance(event, TrialLost))
    assert "no report for 50 s" in lost.why
    events = Journal.read(folder.journal.path)
    assert [e["trial_id"] for e in events if e["event"] == "lost"] == [lost.trial_id]
    steps = [e["report"]["step"] for e in events if e["event"] == "reported"]
    assert sorted(steps) == sorted([25, 50, 75, 100] * 6)  # nothing is trained twice


def test_a_run_that_always_hangs_fails_with_a_sentence_and_the_others_go_on(sweep):
    sit, _, folder = sweep(outcome=hangs(9), trial_timeout=50, max_retries=2)
    assert sit().counts == {"done": 5, "failed": 1}
    (reason,) = folder.trials().query("state == 'failed'")["reason"]
    assert reason.startswith("lost 3 times: it hung: no report for 50 s")
    assert "trial_timeout=SECONDS" in reason


@pytest.mark.parametrize(("timeout", "lost"), [("auto", 1), (None, 0), (6e4, 0)])
def test_by_default_a_run_that_hangs_is_found_and_a_longer_limit_lets_it_wait(sweep, timeout, lost):
    sit, told, _ = sweep(outcome=hangs(1), trial_timeout=timeout)
    assert sit().counts == {"done": 6}
    assert sum(isinstance(event, TrialLost) for event in told) == lost


def test_a_run_that_keeps_reporting_does_not_hang_however_long_it_takes(sweep):
    def slow(run):
        whole = outcome(run)
        return SimulatedRun(reports=tuple((40 * s, r) for s, r in whole.reports), result=whole.result)

    sit, told, _ = sweep(outcome=slow, trial_timeout=50)
    assert sit().counts == {"done": 6}
    assert not any(isinstance(event, TrialLost) for event in told)


def test_a_driver_that_stood_still_takes_no_run_for_a_hanging_one(sweep):
    def late(event):
        if isinstance(event, TrialReported):
            backend.clock.advance_to(backend.now() + 1000)

    _, _, folder = sweep(trial_timeout=200)
    backend = SimulatedBackend(outcome, 2, timing=TIMING)
    told = []
    carry_on(
        folder,
        recorded_spec(folder),
        lambda: backend,
        lambda event: (told.append(event), late(event)),
        finish=lambda _: None,
    )
    assert not any(isinstance(event, TrialLost) for event in told)


def test_the_default_limit_is_a_multiple_of_the_reference_with_a_floor():
    spec = SweepSpec(name="x", workload="a.b:C")
    assert run_timeout(spec, {"steps": 100, "unit_costs": {"plain_step": 1.0}}) == 2000
    assert run_timeout(spec, {"steps": 100, "unit_costs": {"plain_step": 0.01}}) == 900
    assert run_timeout(spec, {"steps": 100}) == 900


@pytest.mark.parametrize("value", [0, -1, "soon", float("inf")])
def test_a_limit_that_cannot_be_one_is_refused(value):
    with pytest.raises(UserError, match="trial_timeout"):
        SweepSpec(name="x", workload="a.b:C", trial_timeout=value)


def test_a_run_goes_on_from_a_checkpoint_that_came_without_a_report(sweep):
    class Silent(SimulatedBackend):
        def start(self, run, checkpoint=None):
            started.append(checkpoint)
            super().start(run, checkpoint)

        def wait(self, seconds):
            heard = super().wait(seconds)
            return [replace(each, report=None) if isinstance(each, Reported) else each for each in heard]

    started = []
    _, told, folder = sweep(space={"max_predict_steps": [10]}, early_stopping={})
    backend = Silent(outcome, 1, timing=TIMING, faults=[WorkerDeath(at=2.5, slot=0)])
    ended = carry_on(folder, recorded_spec(folder), lambda: backend, told.append, finish=lambda _: None)
    assert ended.counts == {"done": 1}
    assert started[0] is None
    assert json.loads(started[1])["step"] == 50
    assert not [event for event in told if isinstance(event, TrialReported)]


def test_what_failed_is_run_again_only_when_asked(sweep):
    sit, _, folder = sweep(slots=1, faults=[WorkerDeath(at=1.5, slot=0)], max_retries=0)
    sit()
    assert sit().counts == {"done": 5, "failed": 1}
    faultless = SimulatedBackend(outcome, 1)
    again = carry_on(
        folder, recorded_spec(folder), lambda: faultless, print, retry_failed=True, finish=lambda _: None
    )
    assert again.counts == {"done": 6}


def test_a_pre_emption_is_not_counted_and_its_pauses_grow(sweep):
    faults = [NodeLoss(at=at, back_after=0.1, preempted=True) for at in (0.5, 2.0, 4.5)]
    sit, told, _ = sweep(slots=1, faults=faults, max_retries=0, space={"max_predict_steps": [10]})
    assert sit().counts == {"done": 1}
    assert [event.again_in_seconds for event in told if isinstance(event, TrialLost)] == [1, 2, 4]


def test_a_point_that_was_given_up_is_pruned_as_a_whole_even_if_a_run_of_it_ends(sweep):
    """The stop may come too late for the cycle in which the run ends by itself."""

    def worse_and_worse(run):
        horizon = run.config["max_predict_steps"]
        worth = {"speedup_counted": 3 - horizon / 100, "quality": 1.1 - horizon / 1000}
        reports = tuple((float(i), {"step": 25 * i, "backward_calls": 10 * i, **worth}) for i in range(1, 5))
        return SimulatedRun(reports=reports, result={**worth, "steps": 100})

    def short(run):
        whole = worse_and_worse(run)
        return SimulatedRun(reports=whole.reports[:2], result=whole.result, state="diverged")

    for name, runs in (("whole", worse_and_worse), ("short", short)):
        sit, _, folder = sweep(
            name=name, outcome=runs, repeats=2, early_stopping={"reduction": 1.5, "first_rung": 0.5}
        )
        sit()
        trials = folder.trials()
        assert not (trials["state"] == "running").any()
        pruned = set(trials.loc[trials["state"] == "pruned", "trial_id"])
        assert pruned
        others = trials[~trials["trial_id"].isin(pruned)]
        assert (others["trial_id"].value_counts() == 2).all()


def test_early_stopping_that_could_judge_nothing_is_refused_before_anything_is_written(sweep, tmp_path):
    with pytest.raises(UserError, match="report_every=50"):
        sweep(early_stopping={}, report_every=50)
    assert not list(tmp_path.iterdir())


def test_a_flat_hypervolume_ends_the_sweep(sweep):
    def worse_and_worse(run):
        horizon = run.config["max_predict_steps"]
        worth = {"speedup_counted": 3 - horizon / 100, "quality": 1.1 - horizon / 1000}
        return SimulatedRun(reports=((1.0, {"step": 100, **worth}),), result=worth)

    sit, _, _ = sweep(slots=1, outcome=worse_and_worse, stop_when_flat=2)
    assert sit().counts == {"done": 3}
    assert sit().counts == {"done": 3}


def test_an_interrupted_sweep_goes_on_from_its_checkpoints(sweep):
    sit, _, folder = sweep()
    reports = []

    def interrupt(event):
        reports.append(event)
        if len(reports) == 9:
            raise KeyboardInterrupt

    first = sit(on_event=interrupt)
    assert first.interrupted
    assert not (folder.trials()["state"] == "running").any()
    assert sit().counts == {"done": 6}
    steps = folder.steps().groupby("trial_id")["step"].agg(list)
    assert all(list(reached) == [25, 50, 75, 100] for reached in steps)


def test_a_refused_session_changes_nothing(sweep):
    sit, _, folder = sweep(slots=1, faults=[WorkerDeath(at=1.5, slot=0)], max_retries=0)
    sit()
    before = folder.journal.path.read_bytes()
    with pytest.raises(UserError, match="fewer than the 6 points"):
        carry_on(
            folder,
            recorded_spec(folder, {"trials": 2}),
            lambda: SimulatedBackend(outcome, 1),
            print,
            retry_failed=True,
            finish=print,
        )
    assert folder.journal.path.read_bytes() == before
    with pytest.raises(UserError, match="cannot go on as another one: seed was 0 and is 1"):
        recorded_spec(folder, {"seed": 1})


class TestControls:
    def outcome(self, run):
        if run.arm in ("", "ablation"):
            return outcome(run)
        reports = tuple((float(i), {"step": 25 * i}) for i in range(1, 5))
        result = {"speedup_counted": 9.0, "quality": 9.0, "backward_calls": run.config["steps"], "steps": 100}
        return SimulatedRun(reports=reports, result=result)

    def started(self, told):
        return [event.trial_id for event in told if isinstance(event, TrialStarted)]

    def test_they_run_after_the_points_and_are_counted_apart(self, sweep):
        sit, told, folder = sweep(controls="basic", outcome=self.outcome, repeats=2)
        assert sit().counts == {"done": 12 + 32}
        assert all(trial_id.startswith("H") for trial_id in self.started(told)[:12])
        total = next(event.total for event in told if isinstance(event, SweepStarted))
        assert total == sum(isinstance(event, TrialFinished) for event in told) == 44
        assert {event.arm for event in told if isinstance(event, TrialFinished)} == {"", "lr", "truncated"}
        assert folder.manifest["budget"] == 6
        status = sweep_status(folder, alive=False)
        assert (status.state, status.planned, status.points) == ("finished", 44, 6)

    def test_they_are_never_on_the_front_though_better_than_all_of_it(self, sweep):
        sit, _, folder = sweep(controls="basic", outcome=self.outcome)
        sit()
        trials = folder.trials()
        assert set(trials["arm"]) == {"", "lr", "truncated"}
        assert set(folder.table("front")["trial_id"]) <= set(trials.loc[trials["arm"] == "", "trial_id"])
        assert len(front_picture(trials, folder.manifest).controls) == 8  # the best of equal budgets
        assert sweep_status(folder, alive=False).hypervolume < 9

    def test_one_that_was_interrupted_goes_on_and_none_runs_twice(self, sweep):
        sit, _, folder = sweep(controls="basic", outcome=self.outcome)

        def interrupt(event):
            if isinstance(event, TrialStarted) and event.trial_id == "lr_x3":
                raise KeyboardInterrupt

        assert sit(on_event=interrupt).interrupted
        assert sweep_status(folder, alive=False).state == "interrupted"
        told = []
        assert sit(on_event=told.append).counts == {"done": 6 + 16}
        again = self.started(told)
        assert "lr_x3" in again and "truncated_x2" not in again
        events = Journal.read(folder.journal.path)
        ended = [event["trial_id"] for event in events if event["event"] == "finished"]
        assert len(ended) == len(set(ended)) == 22

    def test_more_can_be_asked_for_at_resume(self, sweep):
        sit, _, folder = sweep(controls="none", outcome=self.outcome)
        assert sit().counts == {"done": 6}
        backend = SimulatedBackend(self.outcome, 2)
        spec = recorded_spec(folder, {"controls": "basic"})
        outcome = carry_on(folder, spec, lambda: backend, print, finish=lambda _: None)
        assert outcome.counts == {"done": 6 + 16}

    def test_the_best_point_is_ablated_at_the_end(self, sweep):
        sit, told, folder = sweep(controls="full", tuning_trials=1, outcome=self.outcome)
        sit()
        best = folder.table("front")["trial_id"].iloc[0]
        last = self.started(told)[-5:]
        assert last == [f"{best}_{name}" for name in ABLATIONS]
        trials = folder.trials().set_index("trial_id")
        assert set(trials.loc[last, "arm"]) == {"ablation"}
        assert sweep_status(folder, alive=False).state == "finished"
        told.clear()
        sit()
        assert self.started(told) == []

    def test_ablations_of_an_earlier_best_point_stay_and_are_counted(self, sweep):
        sit, _, folder = sweep(controls="full", tuning_trials=1, outcome=self.outcome, trials=1)
        assert sit().counts == {"done": 1 + 32 + 5}
        backend = SimulatedBackend(self.outcome, 2)
        spec = recorded_spec(folder, {"trials": 6})
        counts = carry_on(folder, spec, lambda: backend, print, finish=lambda _: None).counts
        assert counts == {"done": 6 + 32 + 10}
        assert sweep_status(folder, alive=False).planned == 48
        sit()
        assert sweep_status(folder, alive=False).planned == 48

    @pytest.mark.parametrize("how", ["failed", "interrupted"])
    def test_one_of_an_earlier_best_point_is_still_ended(self, sweep, how):
        def breaks(run):
            if how == "failed" and run.trial_id.endswith("_random"):
                return SimulatedRun(reports=((1.0, {"step": 25}),), state="failed", reason="boom")
            return self.outcome(run)

        def interrupt(event):
            if how == "interrupted" and isinstance(event, TrialStarted) and "_random" in event.trial_id:
                raise KeyboardInterrupt

        sit, _, folder = sweep(controls="full", tuning_trials=1, outcome=breaks, trials=1)
        sit(on_event=interrupt)
        (first,) = {name for name in folder.trials()["trial_id"] if name.endswith("_random")}
        spec = recorded_spec(folder, {"trials": 6})
        backend = SimulatedBackend(self.outcome, 2)
        again = carry_on(folder, spec, lambda: backend, print, retry_failed=True, finish=lambda _: None)
        assert again.counts == {"done": len(folder.trials())}
        ended = [e["trial_id"] for e in Journal.read(folder.journal.path) if e["event"] == "finished"]
        assert ended.count(first) == 1 + (how == "failed")
        assert {name for name in folder.trials()["trial_id"] if name.endswith("_random")} > {first}
        assert sweep_status(folder, alive=False).state == "finished"

    def test_one_that_fails_is_retried_like_a_run(self, sweep):
        def breaks(run):
            if run.trial_id == "lr_x2":
                return SimulatedRun(reports=((1.0, {"step": 25}),), state="failed", reason="boom")
            return self.outcome(run)

        sit, _, folder = sweep(controls="basic", outcome=breaks)
        assert sit().counts == {"done": 21, "failed": 1}
        backend = SimulatedBackend(self.outcome, 2)
        spec = recorded_spec(folder)
        again = carry_on(folder, spec, lambda: backend, print, retry_failed=True, finish=lambda _: None)
        assert again.counts == {"done": 22}

    def test_a_sampler_never_hears_of_them(self, sweep):
        sit, _, folder = sweep(controls="basic", outcome=self.outcome)
        sit()
        assert replayed(folder) == 6
        again = RecordedRuns.from_folder(folder.path)
        carried = SimulatedBackend(again, 2)
        other = ResultsFolder(begin(folder.path.parent / "again", recorded_spec(folder), 100, {}).path)
        outcome = carry_on(other, recorded_spec(other), lambda: carried, print, finish=lambda _: None)
        assert outcome.counts == {"done": 22}


def test_interrupts_lose_nothing_that_was_heard_and_double_nothing(sweep, monkeypatch):
    """One as a last report is about to be written, one as the end of that run, heard next, has been."""
    sit, _, folder = sweep(slots=1)
    append, left = Journal.append, ["finished", "reported"]

    def interrupted(journal, event):
        last = event["event"] == "reported" and event["report"]["step"] == 100
        if last and left[-1:] == ["reported"]:
            left.pop()
            signal.raise_signal(signal.SIGINT)
        append(journal, event)
        if event["event"] == "finished" and left == ["finished"]:
            left.pop()
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Journal, "append", interrupted)
    assert sit().interrupted
    assert not left
    assert [event["event"] for event in Journal.read(folder.journal.path)].count("reported") == 4
    assert states(folder) == {"done": 1}
    assert sit().counts == {"done": 6}


UNSTABLE = {"space": {"max_predict_steps": [10, 20, 30, 500, 600]}, "sampler": "random", "trials": 5}


def test_points_masked_as_unstable_are_counted_and_cost_nothing(sweep):
    sit, told, folder = sweep(**UNSTABLE)
    assert sit().counts == {"done": 3}
    assert folder.manifest["masked"] == 2
    assert Note("2 points masked as unstable, at no cost; `mask: null` would try them") in told
    assert replayed(folder) == 3
    sit()
    assert folder.manifest["masked"] == 2
    sit, told, folder = sweep(name="all", mask=None, **UNSTABLE)
    assert sit().counts == {"done": 5}
    assert "masked" not in folder.manifest
