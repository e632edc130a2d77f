"""Ray workers as a back-end: the contract that every back-end keeps, and what only real processes do."""

import asyncio
import os
import signal
import sys
import threading
import time

import pytest
import ray
from support.backend_contract import BackendContract
from support.local_ray import local_ray
from support.patience import HANG_SECONDS

from hybrid_sweep.cluster import backend as backend_module
from hybrid_sweep.cluster.backend import RayBackend, actor_factory
from hybrid_sweep.driver.backend import Finished, Lost, Reported, Run
from hybrid_sweep.errors import UserError

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module", autouse=True)
def cluster():
    with local_ray(4, gpus=2):
        yield


ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import tests
WORTH = {"speedup_counted": 1.5, "quality": 1.0}


class Counter:
    """A runner that counts to `config["steps"]`, and meets with what `config["trouble"]` says at 2."""

    def __init__(self, how="well"):
        self.how = how

    def ready(self):
        if self.how == "badly":
            raise UserError("the workload cannot be built here")
        if self.how == "dead":
            os._exit(1)
        if self.how == "hanging":
            threading.Event().wait()

    def start(self, point, checkpoint=None):
        self.point, self.at = point, int(checkpoint or b"0")

    def step(self):
        time.sleep(0.02)
        config = self.point["config"]
        self.at += 1
        trouble = config.get("trouble")
        if trouble and self.at == 2:
            if trouble == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            if trouble == "hang":
                threading.Event().wait()
            if trouble == "raise":
                return {"finished": {"state": "failed", "reason": "ValueError: no", "result": {}}}
            return {"lost": trouble, "counted": False}
        said = {"report": {"step": self.at}, "checkpoint": str(self.at).encode()}
        if self.at >= config["steps"]:
            ended = {
                "state": "done",
                "reason": "",
                "result": {"pid": os.getpid(), "gpu": os.environ.get("CUDA_VISIBLE_DEVICES"), **WORTH},
            }
            return {"report": said["report"], "finished": ended}
        return said

    def stop_now(self, keep):
        return {"result": {"steps": self.at}, "checkpoint": str(self.at).encode() if keep else None}


class Hasty(Counter):
    """A runner that reports two cycles at once."""

    def step(self):
        first = super().step()
        return first if "report" not in first else {**super().step(), "earlier": [first["report"]]}


class Rare(Counter):
    """A runner of whose cycles only the last one is reported."""

    def step(self):
        said = super().step()
        return said if "finished" in said else {**said, "report": None}


class Late(Counter):
    """A runner that is told late how it is."""

    def __init__(self):
        super().__init__("dead")

    def begin(self, how):
        self.how = how


class Seats:
    """As many runners in one process, each called by its seat; calls may come in any order."""

    def __init__(self, how="well"):
        self.slots = [Counter(how) for _ in range(3)]
        self.taken = [asyncio.Event() for _ in self.slots]

    async def ready(self, slot):
        self.slots[slot].ready()

    async def start(self, slot, point, checkpoint=None):
        self.slots[slot].start(point, checkpoint)
        self.taken[slot].set()

    async def step(self, slot):
        await self.taken[slot].wait()
        said = self.slots[slot].step()
        if "finished" in said or "lost" in said:
            self.taken[slot].clear()
        return said

    async def stop_now(self, slot, keep):
        self.taken[slot].clear()
        return self.slots[slot].stop_now(keep)


@pytest.fixture
def make():
    made = []

    def make(slots=2, how="well", pack=1, runner=Counter):
        runner = Seats if pack > 1 else runner
        made.append(RayBackend(runner, (how,), {"cpu": 1, "gpu": 0}, lambda: slots, pack))
        return made[-1]

    yield make
    for backend in made:
        backend.close()


def run(name="A", steps=3, **config):
    return Run(trial_id=name, seed=0, config={"steps": steps, **config})


def until(backend, ended, patience=HANG_SECONDS):
    """Wait until `ended(all that happened)`."""
    seen, deadline = [], time.monotonic() + patience
    while not ended(seen):
        assert time.monotonic() < deadline, seen
        seen += backend.wait(0.2)
    return seen


def idle(backend, count):
    until(backend, lambda _: backend.free == count)
    return backend


def endings(seen):
    return [h for h in seen if not isinstance(h, Reported)]


class TestRayBackend(BackendContract):
    """What every back-end keeps to."""

    @pytest.fixture
    def backend(self, make):
        return make()

    def make_run(self, trial_id, kind="short", attempt=1):
        trouble = {"failing": "raise", "hanging": "hang"}.get(kind)
        config = {"steps": 10_000 if kind == "long" else 8, "trouble": trouble}
        return Run(trial_id=trial_id, seed=0, config=config, attempt=attempt)

    def kill_worker(self, backend, key):
        (worker,) = (worker for worker in backend._workers if worker.run and worker.run.key == key)
        ray.kill(worker.actor)


class TestRayBackendOfSeats(TestRayBackend):
    """The same where every slot is a seat of one actor; its death is that of all of them."""

    @pytest.fixture
    def backend(self, make):
        return make(pack=2)

    @pytest.mark.skip("an actor dies with all of its seats")
    def test_a_dead_worker_loses_its_run_alone_and_is_replaced(self, backend):
        pass

    def test_a_dead_actor_loses_the_runs_of_all_seats_and_is_replaced(self, backend):
        runs = [self.make_run("a", "long"), self.make_run("b", "long")]
        self.ready(backend)
        for one in runs:
            backend.start(one)
        self.collect(backend, lambda seen: len({h.key for h in seen}) == 2)
        self.kill_worker(backend, runs[0].key)
        seen = self.until_ended(backend, *(one.key for one in runs))
        assert [type(h) for h in self.ends(seen)] == [Lost, Lost]
        self.ready(backend)
        backend.start(self.make_run("a", attempt=2))
        self.until_ended(backend, runs[0].key)
        assert backend.wait(0.2) == []


def test_reports_that_come_together_are_heard_one_by_one(make):
    backend = idle(make(slots=1, runner=Hasty), 1)
    backend.start(run(steps=6))
    *reports, end = until(backend, endings)
    assert [h.report["step"] for h in reports] == [1, 2, 3, 4, 5, 6]
    assert isinstance(end, Finished)


def test_seats_of_several_actors_are_filled_evenly(make):
    backend = idle(make(slots=5, pack=3), 5)
    assert len({worker.actor for worker in backend._workers}) == 2
    for name in "ABCD":
        backend.start(run(name))
    seen = endings(until(backend, lambda seen: len(endings(seen)) == 4))
    pids = [h.result["pid"] for h in seen]
    assert sorted(pids.count(pid) for pid in set(pids)) == [2, 2]
    assert idle(backend, 5).slots == 5


def test_workers_are_reused(make):
    backend = idle(make(slots=1), 1)
    pids = set()
    for name in "ABC":
        backend.start(run(name))
        pids.add(endings(until(backend, endings))[0].result["pid"])
    assert len(pids) == 1


def test_a_worker_that_dies_loses_its_run_and_is_replaced(make):
    backend = idle(make(slots=1), 1)
    backend.start(run(trouble="die"))
    seen = until(backend, endings)
    (lost,) = endings(seen)
    assert isinstance(lost, Lost)
    assert not lost.preempted
    assert lost.why
    checkpoint = seen[0].checkpoint
    idle(backend, 1)
    backend.start(run(), checkpoint)
    again = until(backend, endings)
    assert [h.report["step"] for h in again if isinstance(h, Reported)] == [2, 3]


def test_a_checkpoint_comes_without_a_report_too(make):
    backend = idle(make(slots=1, runner=Rare), 1)
    backend.start(run())
    seen = [h for h in until(backend, endings) if isinstance(h, Reported)]
    assert [(h.report, h.checkpoint) for h in seen] == [(None, b"1"), (None, b"2"), ({"step": 3}, None)]


def test_a_full_gpu_is_no_fault_of_the_run_and_the_worker_lives(make):
    backend = idle(make(slots=1), 1)
    backend.start(run(trouble="the GPU is full"))
    assert endings(until(backend, endings)) == [Lost(("A", 0), "the GPU is full", preempted=True)]
    assert backend.free == 1


def test_workers_that_cannot_start_end_the_sweep_with_a_sentence(make):
    backend = make(how="badly")
    with pytest.raises(UserError, match="the workload cannot be built here"):
        until(backend, lambda _: False)


def test_workers_that_die_as_they_start_end_the_sweep_too(make):
    backend = make(slots=1, how="dead")
    with pytest.raises(UserError, match="workers die as they start"):
        until(backend, lambda _: False)


@pytest.mark.parametrize("pack", [1, 2])
def test_workers_that_are_never_ready_end_the_sweep_with_the_setting_to_raise(pack, monkeypatch):
    monkeypatch.setattr(backend_module, "LOOK_AT_NODES_EVERY_SECONDS", 0.2)
    runner = Seats if pack > 1 else Counter
    share = {"cpu": 1, "gpu": 0}
    backend = RayBackend(runner, ("hanging",), share, lambda: pack, pack, patience=1.0)
    try:
        with pytest.raises(UserError, match=r"not ready after 1 s; .*trial_timeout=SECONDS"):
            until(backend, lambda _: False)
    finally:
        backend.close()


def test_workers_that_are_up_already_are_taken_first():
    share = {"cpu": 1, "gpu": 0}
    prestarted = [actor_factory(Late, share)() for _ in range(2)]
    backend = RayBackend(Late, ("well",), share, lambda: 2, prestarted=prestarted)
    try:
        idle(backend, 2)
        assert {worker.actor for worker in backend._workers} == set(prestarted)
        backend.start(run())
        assert endings(until(backend, endings))
    finally:
        backend.close()


def test_fractions_of_a_gpu_share_it():
    """GPUs that Ray is told of: trials are placed by shares, each sees its own GPU."""
    backend = RayBackend(Counter, ("well",), {"cpu": 0.1, "gpu": 0.5}, lambda: 4)
    try:
        idle(backend, 4)
        for name in "ABCD":
            backend.start(run(name))
        seen = endings(until(backend, lambda seen: len(endings(seen)) == 4))
        assert sorted(h.result["gpu"] for h in seen) == ["0", "0", "1", "1"]
    finally:
        backend.close()
