"""PackRunner: what a worker does that trains several trials at once, each in a seat of its own."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from hybrid_sweep.cluster.worker import Runner
from hybrid_sweep.cluster.worker_context import Shared
from hybrid_sweep.measure.batch_rounds import Pack

logger = logging.getLogger(__name__)


class PackRunner:
    """Does what a `Runner` does in each of its seats; the real steps of all of them are taken together.

    All methods run in one thread. A `step` that waits for the end of its cycle lets others begin theirs, so
    each seat is called as if it were a worker of its own. Ray keeps no order among such calls: a `step` waits
    for the `start` before it.

    Args:
        shared: what all trials of the sweep share; `shared.pack` is the number of seats.
    """

    def __init__(self, shared: Shared) -> None:
        first = Runner(shared)
        self._seats = [first, *(Runner(shared, first) for _ in range(shared.pack - 1))]
        self._pack: Pack[int, dict[str, Any]] = Pack(shared.pack)
        self._taken = [asyncio.Event() for _ in self._seats]  # whether a seat has a trial
        self._said: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._training: asyncio.Task[None] | None = None

    async def ready(self, seat: int) -> None:
        """Build the workload, as `Runner.ready`."""
        self._seats[seat].ready()

    async def start(self, seat: int, point: dict[str, Any], checkpoint: bytes | None = None) -> None:
        """Take on a trial, as `Runner.start`."""
        self._seats[seat].start(point, checkpoint)
        self._taken[seat].set()

    async def step(self, seat: int) -> dict[str, Any]:
        """Train one cycle of a seat's trial together with the others, and return what `Runner.step` does."""
        await self._taken[seat].wait()
        self._said[seat] = asyncio.get_running_loop().create_future()
        self._pack.begin(seat, self._seats[seat].stepping())
        if self._training is None or self._training.done():
            self._training = asyncio.create_task(self._train())
        return await self._said[seat]

    async def stop_now(self, seat: int, keep: bool) -> dict[str, Any]:
        """End a seat's trial here, as `Runner.stop_now`."""
        said = self._seats[seat].stop_now(keep)
        self._leave(seat)
        return said

    def _leave(self, seat: int) -> None:
        self._taken[seat].clear()
        self._pack.leave(seat)

    async def _train(self) -> None:
        """Take real steps while anybody waits for one."""
        try:
            while self._pack.waiting:
                given_up = self._pack.fused.refused
                for seat, said in self._pack.advance():
                    if "report" not in said or "finished" in said:
                        self._leave(seat)
                    self._said.pop(seat).set_result(said)
                if self._pack.fused.refused and not given_up:
                    why = self._pack.fused.refused
                    logger.warning("trials of this worker go on one at a time: %s", why)
                await asyncio.sleep(0)
        except Exception as error:  # each of the runs is lost, and tried again on another worker
            for waiting in self._said.values():
                waiting.set_exception(error)
            self._said.clear()
