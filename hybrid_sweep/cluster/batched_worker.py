"""BatchedWorker: what a worker does that trains several trials at once, each in a seat of its own."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from hybrid_sweep.cluster.worker import TrialWorker
from hybrid_sweep.cluster.worker_context import Shared
from hybrid_sweep.measure.batch_rounds import Pack

logger = logging.getLogger(__name__)


class BatchedWorker:
    """Does what a `TrialWorker` does in each of its seats; the real steps of all of them are taken together.

    All methods run in one thread. A `step` that waits for the end of its cycle lets others begin theirs, so
    each seat is called as if it were a worker of its own. Ray keeps no order among such calls: a `step` waits
    for the `start` before it.

    Args:
        shared: what all trials of the sweep share; `shared.pack` is the number of seats.
    """

    def __init__(self, shared: Shared) -> None:
        first = TrialWorker(shared)
        self._slots = [first, *(TrialWorker(shared, first) for _ in range(shared.pack - 1))]
        self._pack: Pack[int, dict[str, Any]] = Pack(shared.pack)
        self._taken = [asyncio.Event() for _ in self._slots]  # whether a seat has a trial
        self._said: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._training: asyncio.Task[None] | None = None

    async def ready(self, slot: int) -> None:
        """Build the workload, as `TrialWorker.ready`."""
        self._slots[slot].ready()

    async def start(self, slot: int, point: dict[str, Any], checkpoint: bytes | None = None) -> None:
        """Take on a trial, as `TrialWorker.start`."""
        self._slots[slot].start(point, checkpoint)
        self._taken[slot].set()

    async def step(self, slot: int) -> dict[str, Any]:
        """Train one cycle of a slot's run together with the others; return what `TrialWorker.step` does."""
        await self._taken[slot].wait()
        self._said[slot] = asyncio.get_running_loop().create_future()
        self._pack.begin(slot, self._slots[slot].iter_step())
        if self._training is None or self._training.done():
            self._training = asyncio.create_task(self._train())
        return await self._said[slot]

    async def stop_now(self, slot: int, keep: bool) -> dict[str, Any]:
        """End a seat's trial here, as `TrialWorker.stop_now`."""
        said = self._slots[slot].stop_now(keep)
        self._leave(slot)
        return said

    def _leave(self, slot: int) -> None:
        self._taken[slot].clear()
        self._pack.leave(slot)

    async def _train(self) -> None:
        """Take real steps while anybody waits for one."""
        try:
            while self._pack.waiting:
                given_up = self._pack.fused.refused
                for slot, said in self._pack.advance():
                    if "report" not in said or "finished" in said:
                        self._leave(slot)
                    self._said.pop(slot).set_result(said)
                if self._pack.fused.refused and not given_up:
                    why = self._pack.fused.refused
                    logger.warning("trials of this worker go on one at a time: %s", why)
                await asyncio.sleep(0)
        except Exception as error:  # each of the runs is lost, and tried again on another worker
            for waiting in self._said.values():
                waiting.set_exception(error)
            self._said.clear()
