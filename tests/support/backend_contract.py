"""What every `Backend` keeps to: inherit `BackendContract` and give it one with two slots."""

import pytest
from support.patience import HANG_SECONDS

from hybrid_sweep.driver.backend import Finished, Lost, Reported, Stopped

ENDS = (Finished, Lost, Stopped)


class BackendContract:
    """The contract of `hybrid_sweep.driver.backend.Backend` as tests.

    Subclasses give the fixture `backend`, with two slots, and the methods `make_run` and `kill_worker`.
    """

    patience = float(HANG_SECONDS)
    """Seconds of the back-end's clock after which a test gives up."""

    @pytest.fixture
    def backend(self):
        raise NotImplementedError

    def make_run(self, trial_id, kind="short", attempt=1):
        """Return a `Run`: "short" is soon done, "failing" raises, "long" goes on for very long.

        "hanging" reports once, and then says nothing more.
        """
        raise NotImplementedError

    def kill_worker(self, backend, key):
        """Have the worker under a run die."""
        raise NotImplementedError

    def collect(self, backend, enough):
        """Wait until `enough(updates)`; what holds at every moment is asserted after every wait."""
        updates, deadline = [], backend.now() + self.patience
        while not enough(updates):
            before = backend.now()
            assert before < deadline, f"only {updates} happened"
            updates += backend.wait(1.0)
            assert backend.now() >= before
            assert 0 <= backend.free <= backend.slots
        return updates

    def ends(self, updates, *keys):
        return [h for h in updates if isinstance(h, ENDS) and (not keys or h.key in keys)]

    def until_ended(self, backend, *keys):
        return self.collect(backend, lambda seen: {h.key for h in self.ends(seen)} >= set(keys))

    def ready(self, backend):
        """Wait until both workers are up."""
        self.collect(backend, lambda seen: backend.free == 2)
        return backend

    def test_it_begins_with_every_slot_free(self, backend):
        self.ready(backend)
        assert backend.slots == 2

    def test_a_run_reports_in_order_and_then_ends_once(self, backend):
        run = self.make_run("a")
        self.ready(backend).start(run)
        *reports, end = self.until_ended(backend, run.key)
        assert len(reports) >= 2
        assert all(isinstance(h, Reported) and h.key == run.key for h in reports)
        steps = [h.report["step"] for h in reports]
        assert steps == sorted(set(steps))
        assert isinstance(end, Finished)
        assert (end.key, end.state) == (run.key, "done")
        assert backend.free == 2
        assert backend.wait(0.2) == []

    def test_two_runs_take_two_slots(self, backend):
        first, second = self.make_run("a", "long"), self.make_run("b", "long")
        self.ready(backend).start(first)
        assert backend.free == 1
        backend.start(second)
        assert backend.free == 0
        seen = self.collect(backend, lambda seen: len({h.key for h in seen}) == 2)
        assert not self.ends(seen)
        assert backend.free == 0

    def test_runs_share_the_slots_and_each_ends_once(self, backend):
        waiting = [self.make_run(f"t{i}", "failing" if i % 3 == 2 else "short") for i in range(7)]
        keys = {run.key for run in waiting}
        self.ready(backend)

        def enough(seen):
            while waiting and backend.free:
                backend.start(waiting.pop())
            running = 7 - len(waiting) - len(self.ends(seen))
            assert running <= backend.slots
            assert backend.free <= backend.slots - running
            return len(self.ends(seen)) == 7

        seen = self.collect(backend, enough)
        assert {h.key for h in self.ends(seen)} == keys
        for key in keys:
            own = [h for h in seen if h.key == key]
            assert [isinstance(h, ENDS) for h in own] == [False] * (len(own) - 1) + [True]

    def test_a_failing_run_says_why(self, backend):
        run = self.make_run("a", "failing")
        self.ready(backend).start(run)
        end = self.until_ended(backend, run.key)[-1]
        assert isinstance(end, Finished)
        assert end.state == "failed"
        assert end.reason
        assert backend.free == 2

    def test_a_stopped_run_ends_and_nothing_of_it_follows(self, backend):
        run = self.make_run("a", "long")
        self.ready(backend).start(run)
        self.collect(backend, lambda seen: len(seen) >= 1)
        backend.stop(run.key)
        backend.stop(run.key)
        end = self.until_ended(backend, run.key)[-1]
        assert isinstance(end, Stopped)
        assert end.result["steps"] > 0
        assert end.checkpoint is None
        assert backend.free == 2
        assert backend.wait(0.2) == []

    def test_stopping_what_is_over_or_never_was_is_no_error(self, backend):
        run = self.make_run("a")
        self.ready(backend).start(run)
        self.until_ended(backend, run.key)
        backend.stop(run.key)
        backend.stop(("never was", 0), keep=True)
        assert backend.wait(0.2) == []
        assert backend.free == 2

    def test_a_kept_run_goes_on_where_it_stopped_and_ends_alike(self, backend):
        run = self.make_run("a")
        self.ready(backend).start(run)
        whole = self.until_ended(backend, run.key)
        backend.start(run)
        before = self.collect(backend, lambda seen: len(seen) >= 1)
        backend.stop(run.key, keep=True)
        stopped = (before + self.until_ended(backend, run.key))[-1]
        if isinstance(stopped, Finished):
            pytest.fail("the run was over before it could stop: make it longer")
        assert stopped.checkpoint is not None
        backend.start(self.make_run("a", attempt=2), stopped.checkpoint)
        after = self.until_ended(backend, run.key)
        steps = [h.report["step"] for h in [*before, *after] if isinstance(h, Reported)]
        assert steps == sorted(set(steps))
        assert min(h.report["step"] for h in after if isinstance(h, Reported)) > stopped.result["steps"]
        for column in ("speedup_counted", "quality"):
            assert after[-1].result[column] == whole[-1].result[column]

    def test_a_dead_worker_loses_its_run_alone_and_is_replaced(self, backend):
        lost, other = self.make_run("a", "long"), self.make_run("b", "long")
        self.ready(backend).start(lost)
        backend.start(other)
        self.collect(backend, lambda seen: len({h.key for h in seen}) == 2)
        self.kill_worker(backend, lost.key)
        end = self.ends(self.until_ended(backend, lost.key))
        assert [type(h) for h in end] == [Lost]
        assert (end[0].key, end[0].preempted) == (lost.key, False)
        assert end[0].why
        self.collect(backend, lambda seen: backend.free == 1)
        again = self.make_run("a", attempt=2)
        backend.start(again)
        seen = self.until_ended(backend, again.key)
        assert isinstance(self.ends(seen, again.key)[0], Finished)
        assert not self.ends(seen, other.key)

    def test_a_killed_run_is_lost_for_the_reason_given_and_may_start_again(self, backend):
        hung, other = self.make_run("a", "hanging"), self.make_run("b", "long")
        self.ready(backend).start(hung)
        self.collect(backend, lambda seen: len(seen) >= 1)
        backend.kill(hung.key, "it hung")
        (end,) = self.ends(self.until_ended(backend, hung.key))
        assert (type(end), end.why, end.preempted) == (Lost, "it hung", False)
        self.collect(backend, lambda seen: backend.free == 2)
        backend.start(other)
        backend.kill(hung.key, "it is over")
        again = self.make_run("a", attempt=2)
        backend.start(again)
        seen = self.until_ended(backend, again.key)
        assert isinstance(self.ends(seen, again.key)[0], Finished)
        assert not self.ends(seen, other.key)

    def test_waiting_for_nothing_ends_in_time(self, backend):
        self.ready(backend)
        began = backend.now()
        assert backend.wait(0.1) == []
        assert 0 <= backend.now() - began < self.patience
