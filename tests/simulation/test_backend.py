"""The simulated back-end keeps to the contract, never sleeps, and breaks exactly when it is told to."""

import json
from math import inf, nan

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from support.backend_contract import ENDS, BackendContract

from hybrid_sweep.driver.backend import Finished, Lost, Reported, Run, Stopped
from hybrid_sweep.simulation.backend import (
    NodeLoss,
    SimulatedBackend,
    SimulatedRun,
    Timing,
    VirtualClock,
    WorkerDeath,
)


def plan(reports: int = 4, every: float = 1.0, **end) -> SimulatedRun:
    """Report step 10, 20, ... every so many seconds, with a quality that tells the step."""
    return SimulatedRun(
        reports=tuple((every * i, {"step": 10 * i, "quality": i / 10}) for i in range(1, reports + 1)),
        **{"result": {"quality": 0.9, "speedup_counted": 2.0}, **end},
    )


def run(trial_id: str = "a", **config) -> Run:
    return Run(trial_id=trial_id, seed=0, config=config)


def drain(backend: SimulatedBackend, until: float = 1000.0) -> list[tuple[float, object]]:
    seen = []
    while backend.now() < until:
        updates = backend.wait(until - backend.now())
        seen += [(backend.now(), update) for update in updates]
    return seen


class TestContract(BackendContract):
    patience = 1000.0

    @pytest.fixture
    def backend(self) -> SimulatedBackend:
        kinds = {
            "short": plan(),
            "failing": plan(1, state="failed", reason="RuntimeError: broken", result={}),
            "long": plan(500),
            "hanging": SimulatedRun(reports=((1.0, {"step": 10}), (1e9, {"step": 20}))),
        }
        return SimulatedBackend(lambda run: kinds[run.config["kind"]], 2, timing=Timing(start_seconds=0.5))

    def make_run(self, trial_id, kind="short", attempt=1) -> Run:
        return Run(trial_id=trial_id, seed=0, config={"kind": kind}, attempt=attempt)

    def kill_worker(self, backend, key) -> None:
        backend.inject(WorkerDeath(at=backend.now(), slot=0 if key[0] == "a" else 1))


def test_time_passes_by_the_events_and_by_the_delays() -> None:
    backend = SimulatedBackend(
        lambda run: plan(2, every=3.0), 1, timing=Timing(start_seconds=5, report_seconds=0.25)
    )
    backend.start(run())
    assert [(at, type(what)) for at, what in drain(backend)] == [
        (8.25, Reported),
        (11.5, Reported),
        (11.5, Finished),
    ]


def test_waiting_ends_with_its_seconds_or_with_the_first_event() -> None:
    backend = SimulatedBackend(lambda run: plan(1, every=10.0), 1)
    backend.start(run())
    assert backend.wait(4) == []
    assert backend.now() == 4
    assert [type(h) for h in backend.wait(1e9)] == [Reported, Finished]
    assert backend.now() == 10


def test_runs_that_report_at_the_same_second_are_told_together_in_their_order() -> None:
    backend = SimulatedBackend(lambda run: plan(1), 3)
    for name in "cab":
        backend.start(run(name))
    assert [h.key[0] for h in backend.wait(10)] == ["c", "c", "a", "a", "b", "b"]


def test_a_run_may_end_after_its_last_report_or_without_any() -> None:
    plans = {
        "late": plan(1, seconds=7.0),
        "silent": SimulatedRun(seconds=3.0, state="failed", reason="raised"),
    }
    backend = SimulatedBackend(lambda run: plans[run.trial_id], 2)
    backend.start(run("late"))
    backend.start(run("silent"))
    ends = [(at, what.key[0], what.state) for at, what in drain(backend) if isinstance(what, Finished)]
    assert ends == [(3.0, "silent", "failed"), (7.0, "late", "done")]


def test_checkpoints_come_with_the_first_report_after_each_interval() -> None:
    backend = SimulatedBackend(lambda run: plan(8), 1, timing=Timing(checkpoint_seconds=2.5))
    backend.start(run())
    assert [what.report["step"] for _, what in drain(backend) if getattr(what, "checkpoint", None)] == [
        30,
        60,
    ]


def test_a_run_goes_on_behind_its_checkpoint_and_takes_only_the_seconds_that_are_left() -> None:
    backend = SimulatedBackend(lambda run: plan(4), 1, timing=Timing(checkpoint_seconds=0))
    backend.start(run())
    (first,) = backend.wait(1)
    backend.inject(WorkerDeath(at=1.5))
    (lost,) = backend.wait(10)
    assert isinstance(lost, Lost)
    backend.start(run(), first.checkpoint)
    seen = drain(backend)
    assert [what.report["step"] for _, what in seen if isinstance(what, Reported)] == [20, 30, 40]
    assert seen[-1][0] == 1.5 + 3


def test_what_a_stopped_run_had_reached_is_its_last_report() -> None:
    backend = SimulatedBackend(lambda run: plan(4), 1)
    backend.start(run())
    backend.wait(1)
    backend.stop(("a", 0), keep=True)
    (stopped,) = backend.wait(10)
    assert isinstance(stopped, Stopped)
    assert stopped.result == {"quality": 0.2, "steps": 20}
    assert json.loads(stopped.checkpoint)["step"] == 20


def test_a_run_that_is_stopped_on_its_last_report_has_ended_by_itself() -> None:
    backend = SimulatedBackend(lambda run: plan(1), 1)
    backend.start(run())
    backend.stop(("a", 0))
    assert [type(h) for h in backend.wait(10)] == [Reported, Finished]


def test_a_lost_node_takes_its_slots_and_their_runs_along_and_may_come_back() -> None:
    loss = NodeLoss(at=2.5, slots=2, back_after=10, preempted=True)
    backend = SimulatedBackend(lambda run: plan(50), 3, faults=[loss])
    for name in "abc":
        backend.start(run(name))
    while backend.now() < 2.5:
        updates = backend.wait(1)
    assert [(h.key[0], h.preempted) for h in updates] == [("b", True), ("c", True)]
    assert (backend.slots, backend.free) == (1, 0)
    backend.stop(("a", 0))
    drain(backend, until=12.4)
    assert (backend.slots, backend.free) == (1, 1)
    assert backend.wait(100) == []
    assert backend.now() == 12.5
    assert (backend.slots, backend.free) == (3, 3)


def test_more_slots_than_are_left_cannot_be_lost() -> None:
    backend = SimulatedBackend(lambda run: plan(), 2, faults=[NodeLoss(at=1, slots=5), NodeLoss(at=2)])
    drain(backend, until=5)
    assert backend.slots == 0
    with pytest.raises(RuntimeError, match="no slot is free"):
        backend.start(run())


def test_a_driver_that_starts_what_it_must_not_is_told() -> None:
    backend = SimulatedBackend(lambda run: plan(), 2, timing=Timing(checkpoint_seconds=0))
    backend.start(run("a"))
    with pytest.raises(RuntimeError, match="runs already"):
        backend.start(run("a"))
    (report,) = backend.wait(1)
    with pytest.raises(RuntimeError, match="checkpoint of"):
        backend.start(run("b"), report.checkpoint)


def test_the_clock_dates_events_and_never_goes_back() -> None:
    clock = VirtualClock(90)
    clock.advance_to(60)
    assert clock.utc().isoformat() == "2000-01-01T00:01:30+00:00"


@pytest.mark.parametrize(
    "delays",
    [{"start_seconds": -1}, {"report_seconds": nan}, {"start_seconds": inf}, {"checkpoint_seconds": -0.1}],
)
def test_delays_that_cannot_be_are_refused(delays: dict) -> None:
    with pytest.raises(ValueError, match="not below 0"):
        Timing(**delays)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"reports": ((2.0, {"step": 1}), (1.0, {"step": 2}))}, "never fall"),
        ({"reports": ((1.0, {"step": 5}), (2.0, {"step": 5}))}, "above the one before"),
        ({"reports": ((3.0, {"step": 1}),), "seconds": 2.0}, "never fall"),
        ({"seconds": inf}, "finite"),
    ],
)
def test_runs_that_cannot_be_are_refused(fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SimulatedRun(**fields)


class AnyDriver(RuleBasedStateMachine):
    """Starts, stops, waits and breaks at random; every run started ends exactly once, and time only grows."""

    def __init__(self) -> None:
        super().__init__()
        self.backend = SimulatedBackend(
            lambda run: plan(run.config["reports"], every=run.config["every"]),
            3,
            timing=Timing(start_seconds=0.3, report_seconds=0.1, checkpoint_seconds=1.0),
        )
        self.running: dict = {}
        self.checkpoints: dict = {}
        self.steps: dict = {}
        self.started = 0

    @precondition(lambda self: self.backend.free)
    @rule(reports=st.integers(0, 5), every=st.floats(0, 3), again=st.booleans())
    def start(self, reports: int, every: float, again: bool) -> None:
        key = next(iter(self.checkpoints), None) if again else None
        if key is None:
            self.started += 1
            fresh = run(f"t{self.started}", reports=reports, every=every)
            self.running[fresh.key] = fresh
            self.backend.start(fresh)
            return
        earlier, checkpoint = self.checkpoints.pop(key)
        self.running[key] = earlier
        self.steps[key] = json.loads(checkpoint)["step"]
        self.backend.start(earlier, checkpoint)

    @rule(seconds=st.floats(0, 4))
    def wait(self, seconds: float) -> None:
        before = self.backend.now()
        for update in self.backend.wait(seconds):
            key = update.key
            assert key in self.running  # nothing of a run that is over, or was never started
            if isinstance(update, Reported):
                assert update.report["step"] > self.steps.get(key, 0)
                self.steps[key] = update.report["step"]
            earlier = self.running.pop(key) if isinstance(update, ENDS) else self.running[key]
            if isinstance(update, Stopped) and update.checkpoint:
                self.checkpoints[key] = earlier, update.checkpoint
        assert before <= self.backend.now() <= before + seconds

    @precondition(lambda self: self.running)
    @rule(keep=st.booleans(), data=st.data())
    def stop(self, keep: bool, data: st.DataObject) -> None:
        self.backend.stop(data.draw(st.sampled_from(sorted(self.running))), keep=keep)

    @rule(after=st.floats(0, 2), slot=st.integers(0, 2))
    def kill(self, after: float, slot: int) -> None:
        self.backend.inject(WorkerDeath(at=self.backend.now() + after, slot=slot))

    @rule(after=st.floats(0, 2), slots=st.integers(1, 3), back_after=st.floats(0, 3))
    def lose(self, after: float, slots: int, back_after: float) -> None:
        self.backend.inject(NodeLoss(at=self.backend.now() + after, slots=slots, back_after=back_after))

    @invariant()
    def slots_add_up(self) -> None:
        assert 0 <= self.backend.free <= self.backend.slots <= 3
        assert len(self.running) == self.backend.slots - self.backend.free

    def teardown(self) -> None:
        for _ in range(200):
            if not self.running:
                break
            self.wait(4.0)
        assert not self.running


AnyDriver.TestCase.settings = settings(max_examples=60, stateful_step_count=30)
TestAnyDriver = AnyDriver.TestCase
