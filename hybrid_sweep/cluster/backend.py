"""RayBackend: runs in warm, reused Ray actors that keep torch, data and workload in memory."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import inf
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError

from hybrid_sweep.cluster.ray_errors import summarize_ray_error
from hybrid_sweep.driver.backend import Finished, Key, Lost, Reported, Run, RunUpdate, Stopped
from hybrid_sweep.driver.silence import REMEDY, Silence
from hybrid_sweep.errors import UserError

LOOK_AT_NODES_EVERY_SECONDS = 5.0
FAILED_STARTS_ALLOWED = 3
"""Workers a slot that die before their first run, none coming up in between; then the sweep ends."""


@dataclass(slots=True, eq=False)
class _Worker:
    """An actor, the call whose answer it owes, and the run that the call is for.

    An actor with several seats is a worker in each of them: `slot` is the first argument of its calls then.
    `keep` is what `stop` was asked for, None where it was not; `stopping` says that the call is the last.
    `why` is why the actor was killed, "" where it was not. `began` is answered once a new actor has its
    process; None of one that had it before.
    """

    actor: Any
    answer: Any
    slot: tuple[int, ...] = ()
    up: bool = False
    run: Run | None = None
    keep: bool | None = None
    stopping: bool = False
    why: str = ""
    began: Any = None


class RayBackend:
    """Implements `driver.backend.Backend` on a Ray cluster that is connected already.

    Args:
        runner: a class with the methods of `cluster.runner.TrialWorker`.
        arguments: what it is made with; references to Ray's object store are resolved.
        share: `num_cpus` and `num_gpus` of a slot.
        count_slots: how many slots the cluster has at this moment, and is wanted to have.
        pack: slots of an actor; where it is more than one, `runner` takes the seat with every call, and
            lets a `step` that overtakes its `start` wait.
        prestarted: actors of `runner` that are up already, the first to be given work: they get `arguments`
            by their method `begin`.
        patience: seconds in which an actor that has its process is to be ready; else it is killed.
    """

    def __init__(
        self,
        runner: type,
        arguments: tuple[Any, ...],
        share: dict[str, float],
        count_slots: Callable[[], int],
        pack: int = 1,
        prestarted: Iterable[Any] = (),
        patience: float = inf,
    ) -> None:
        self._arguments = arguments
        self._spawn = actor_factory(runner, share)
        self._prestarted = list(prestarted)
        self._count_slots = count_slots
        self._silence: Silence[_Worker] = Silence(patience)
        self._pack = pack
        self._workers: list[_Worker] = []
        self._pending: dict[Any, _Worker] = {}
        self._failed_starts = 0
        self._looked = -LOOK_AT_NODES_EVERY_SECONDS
        self._scale_to_slots()

    @property
    def slots(self) -> int:
        """How many workers there are, those on their way included."""
        return len(self._workers)

    @property
    def free(self) -> int:
        """How many workers are up and idle."""
        return sum(worker.answer is None for worker in self._workers)

    def now(self) -> float:
        """Return seconds of a clock that only goes forward."""
        return time.monotonic()

    def start(self, run: Run, checkpoint: bytes | None = None) -> None:
        """Start a run on an idle worker, of the actor that has fewest."""
        busy = Counter(worker.actor for worker in self._workers if worker.run)
        idle = [worker for worker in self._workers if worker.answer is None]
        worker = min(idle, key=lambda worker: busy[worker.actor])
        worker.run, worker.keep, worker.stopping = run, None, False
        point = {"trial_id": run.trial_id, "seed": run.seed, "config": run.config, "arm": run.arm}
        worker.actor.start.remote(*worker.slot, point, checkpoint)
        self._call(worker, worker.actor.step)

    def stop(self, key: Key, *, keep: bool = False) -> None:
        """Have a run end after the call that it is in."""
        for worker in self._workers:
            if worker.run and worker.run.key == key:
                worker.keep = keep

    def kill(self, key: Key, why: str) -> None:
        """Kill the actor under a run, and with it the runs that it trains beside."""
        for worker in [worker for worker in self._workers if worker.run and worker.run.key == key]:
            if worker.answer and ray.wait([worker.answer], timeout=0, fetch_local=False)[0]:
                return  # it has just answered
            for other in self._workers:
                other.why = why if other.actor is worker.actor else other.why
            ray.kill(worker.actor)

    def wait(self, seconds: float) -> list[RunUpdate]:
        """Return what happened; a worker whose run goes on is at work again before this returns."""
        if self.now() - self._looked >= LOOK_AT_NODES_EVERY_SECONDS:
            self._scale_to_slots()
        if not self._pending:
            time.sleep(seconds)
            return []
        first, _ = ray.wait(list(self._pending), num_returns=1, timeout=seconds, fetch_local=False)
        if not first:
            return []
        ready, _ = ray.wait(list(self._pending), num_returns=len(self._pending), timeout=0, fetch_local=False)
        updates: list[RunUpdate] = []
        for answer in ready:
            if worker := self._pending.pop(answer, None):  # else its actor has just been found dead
                updates += self._collect(worker, answer)
        return updates

    def close(self) -> None:
        """End the workers."""
        for actor in {*self._prestarted, *(worker.actor for worker in self._workers)}:
            ray.kill(actor)
        self._prestarted.clear()
        self._workers.clear()
        self._pending.clear()

    def _scale_to_slots(self) -> None:
        """Hire workers for the slots that have none, and ask the idle ones whether they are still there."""
        self._looked = self.now()
        self._kill_what_hangs()
        for worker in self._workers:
            if worker.answer is None:
                self._call(worker, worker.actor.ready)
        missing = self._count_slots() - len(self._workers)
        for first in range(0, missing, self._pack):
            actor, began = self._next_actor()
            for slot in range(min(self._pack, missing - first)):
                worker = _Worker(actor, None, (slot,) if self._pack > 1 else (), began=began)
                self._workers.append(worker)
                self._call(worker, actor.ready)

    def _next_actor(self) -> tuple[Any, Any]:
        if not self._prestarted:
            actor = self._spawn(*self._arguments)
            return actor, actor.__ray_ready__.remote()
        actor = self._prestarted.pop(0)
        actor.begin.remote(*self._arguments)
        return actor, None

    def _kill_what_hangs(self) -> None:
        """Kill the actors that have their process, and have not been ready for too long."""
        late = [worker for worker in self._workers if not (worker.up or worker.run)]
        started = [w for w in late if w.began is None or ray.wait([w.began], timeout=0)[0]]
        for worker in self._silence.too_long(self.now(), dict.fromkeys(started)):
            worker.why = f"a worker was not ready after {self._silence.limit:g} s; {REMEDY}"
            ray.kill(worker.actor)

    def _call(self, worker: _Worker, method: Any, *arguments: Any) -> None:
        worker.answer = method.remote(*worker.slot, *arguments)
        self._pending[worker.answer] = worker

    def _collect(self, worker: _Worker, answer: Any) -> list[RunUpdate]:
        """Turn an answer into what happened, and give the worker its next call."""
        run, worker.answer = worker.run, None
        try:
            said = ray.get(answer)
        except RayError as error:
            return self._handle_dead_actor(worker, error)
        if run is None:
            worker.up, self._failed_starts = True, 0
            return []
        if worker.stopping:
            return self._release(worker, Stopped(run.key, said["result"], said["checkpoint"]))
        updates: list[RunUpdate] = [Reported(run.key, report) for report in said.get("earlier", ())]
        report, checkpoint = said.get("report"), said.get("checkpoint")
        if report or checkpoint:
            updates.append(Reported(run.key, report, checkpoint))
        if lost := said.get("lost"):
            return [*updates, *self._release(worker, Lost(run.key, lost, not said.get("counted", True)))]
        if finished := said.get("finished"):
            return [*updates, *self._release(worker, Finished(run.key, **finished))]
        worker.stopping = worker.keep is not None
        if worker.stopping:
            self._call(worker, worker.actor.stop_now, worker.keep)
        else:
            self._call(worker, worker.actor.step)
        return updates

    def _release(self, worker: _Worker, update: RunUpdate) -> list[RunUpdate]:
        worker.run = None
        return [update]

    def _handle_dead_actor(self, worker: _Worker, error: RayError) -> list[RunUpdate]:
        """Take a worker out that has died, with those of its actor; the next look at the nodes replaces it.

        Raises:
            UserError: too many in a row have died before they could do anything.
        """
        dead = [other for other in self._workers if other.actor is worker.actor]
        for one in dead:
            self._workers.remove(one)
            self._pending.pop(one.answer, None)
        self._looked = -LOOK_AT_NODES_EVERY_SECONDS
        ray.kill(worker.actor)
        preempted = isinstance(error, RayActorError) and error.preempted
        if lost := [(one.run, one.why or summarize_ray_error(error)) for one in dead if one.run]:
            return [Lost(run.key, why, preempted, str(error)) for run, why in lost]
        cause = getattr(error, "cause", None)
        if isinstance(cause, UserError):
            raise UserError(str(cause)) from None
        self._failed_starts += not (worker.up or preempted)
        limit = FAILED_STARTS_ALLOWED * max(self._count_slots() // self._pack, 1)
        if self._failed_starts >= limit and not any(other.up for other in self._workers):
            raise UserError(
                f"workers die as they start: {worker.why or summarize_ray_error(error)}; "
                "fix that, then resume"
            ) from None
        return []


def actor_factory(runner: type, share: dict[str, float]) -> Callable[..., Any]:
    """Return what makes an actor of `runner` with `share`, spread over the nodes; a dead one stays dead."""
    options = {"num_cpus": share["cpu"], "num_gpus": share["gpu"]}
    make: Any = ray.remote(runner).options(**options, max_restarts=0, scheduling_strategy="SPREAD")
    hire: Callable[..., Any] = make.remote
    return hire
