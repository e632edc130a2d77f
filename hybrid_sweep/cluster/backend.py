"""RayBackend: runs in warm, reused Ray actors, one a slot, that keep torch, data and workload in memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError

from hybrid_sweep.driver.backend import Finished, Happening, Key, Lost, Reported, Run, Stopped
from hybrid_sweep.errors import UserError

LOOK_AT_NODES_EVERY_SECONDS = 5.0
FAILED_STARTS_ALLOWED = 3
"""Workers a slot that die before their first run, none coming up in between; then the sweep ends."""


@dataclass(slots=True, eq=False)
class _Worker:
    """An actor, the call whose answer it owes, and the run that the call is for.

    `keep` is what `stop` was asked for, None where it was not; `stopping` says that the call is the last.
    """

    actor: Any
    answer: Any
    up: bool = False
    run: Run | None = None
    keep: bool | None = None
    stopping: bool = False


class RayBackend:
    """Implements `driver.backend.Backend` on a Ray cluster that is connected already.

    Args:
        runner: a class with the methods of `cluster.runner.Runner`.
        arguments: what it is made with; references to Ray's object store are resolved.
        share: `num_cpus` and `num_gpus` of a slot.
        count_slots: how many slots the cluster has at this moment, and is wanted to have.
    """

    def __init__(
        self,
        runner: type,
        arguments: tuple[Any, ...],
        share: dict[str, float],
        count_slots: Callable[[], int],
    ) -> None:
        self._arguments = arguments
        self._make: Any = ray.remote(runner).options(
            num_cpus=share["cpu"], num_gpus=share["gpu"], max_restarts=0, scheduling_strategy="SPREAD"
        )
        self._count_slots = count_slots
        self._workers: list[_Worker] = []
        self._owing: dict[Any, _Worker] = {}
        self._failed_starts = 0
        self._looked = -LOOK_AT_NODES_EVERY_SECONDS
        self._staff()

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
        """Start a run on an idle worker."""
        worker = next(worker for worker in self._workers if worker.answer is None)
        worker.run, worker.keep, worker.stopping = run, None, False
        point = {"trial_id": run.trial_id, "seed": run.seed, "config": run.config, "arm": run.arm}
        worker.actor.start.remote(point, checkpoint)
        self._call(worker, worker.actor.step)

    def stop(self, key: Key, *, keep: bool = False) -> None:
        """Have a run end after the cycle that it is in."""
        for worker in self._workers:
            if worker.run and worker.run.key == key:
                worker.keep = keep

    def wait(self, seconds: float) -> list[Happening]:
        """Return what happened; a worker whose run goes on is at work again before this returns."""
        if self.now() - self._looked >= LOOK_AT_NODES_EVERY_SECONDS:
            self._staff()
        if not self._owing:
            time.sleep(seconds)
            return []
        first, _ = ray.wait(list(self._owing), num_returns=1, timeout=seconds, fetch_local=False)
        if not first:
            return []
        ready, _ = ray.wait(list(self._owing), num_returns=len(self._owing), timeout=0, fetch_local=False)
        happenings: list[Happening] = []
        for answer in ready:
            happenings += self._hear(self._owing.pop(answer), answer)
        return happenings

    def close(self) -> None:
        """End the workers."""
        for worker in self._workers:
            ray.kill(worker.actor)
        self._workers.clear()
        self._owing.clear()

    def _staff(self) -> None:
        """Hire workers for the slots that have none, and ask the idle ones whether they are still there."""
        self._looked = self.now()
        for worker in self._workers:
            if worker.answer is None:
                self._call(worker, worker.actor.ready)
        for _ in range(self._count_slots() - len(self._workers)):
            actor = self._make.remote(*self._arguments)
            worker = _Worker(actor, None)
            self._workers.append(worker)
            self._call(worker, actor.ready)

    def _call(self, worker: _Worker, method: Any, *arguments: Any) -> None:
        worker.answer = method.remote(*arguments)
        self._owing[worker.answer] = worker

    def _hear(self, worker: _Worker, answer: Any) -> list[Happening]:
        """Turn an answer into what happened, and give the worker its next call."""
        run, worker.answer = worker.run, None
        try:
            said = ray.get(answer)
        except RayError as error:
            return self._bury(worker, error)
        if run is None:
            worker.up, self._failed_starts = True, 0
            return []
        if worker.stopping:
            return [*self._let_go(worker, Stopped(run.key, said["result"], said["checkpoint"]))]
        happenings: list[Happening] = []
        if report := said.get("report"):
            happenings.append(Reported(run.key, report, said.get("checkpoint")))
        if lost := said.get("lost"):
            return [*happenings, *self._let_go(worker, Lost(run.key, lost, not said.get("counted", True)))]
        if finished := said.get("finished"):
            return [*happenings, *self._let_go(worker, Finished(run.key, **finished))]
        worker.stopping = worker.keep is not None
        if worker.stopping:
            self._call(worker, worker.actor.stop_now, worker.keep)
        else:
            self._call(worker, worker.actor.step)
        return happenings

    def _let_go(self, worker: _Worker, happening: Happening) -> list[Happening]:
        worker.run = None
        return [happening]

    def _bury(self, worker: _Worker, error: RayError) -> list[Happening]:
        """Take a worker out that has died; the next look at the nodes replaces it.

        Raises:
            UserError: too many in a row have died before they could do anything.
        """
        self._workers.remove(worker)
        self._looked = -LOOK_AT_NODES_EVERY_SECONDS
        ray.kill(worker.actor)
        preempted = isinstance(error, RayActorError) and error.preempted
        if worker.run is not None:
            return [Lost(worker.run.key, last_words(error), preempted, str(error))]
        cause = getattr(error, "cause", None)
        if isinstance(cause, UserError):
            raise UserError(str(cause)) from None
        self._failed_starts += not (worker.up or preempted)
        limit = FAILED_STARTS_ALLOWED * max(self._count_slots(), 1)
        if self._failed_starts >= limit and not any(other.up for other in self._workers):
            raise UserError(
                f"workers die as they start: {last_words(error)}; mend that, then resume"
            ) from None
        return []


def last_words(error: RayError) -> str:
    """Return in one line what Ray says of a worker's end."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1 if lines and lines[0].startswith("ray::") else 0] if lines else type(error).__name__
