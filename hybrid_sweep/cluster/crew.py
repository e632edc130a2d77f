"""Crew: the workers of a sweep before it begins, which prepare what its trials need."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayActorError

PATIENCE_SECONDS = 2.0
"""For workers that are not up when the first one is: they may have no place on the cluster as yet."""


@dataclass(slots=True)
class Task:
    """A preparation, the worker that has it, and the answer that it owes."""

    arguments: tuple[Any, ...]
    worker: Any
    answer: Any


class Crew:
    """Workers that are hired at once, prepare the sweep side by side, and then run its trials.

    So each of them imports torch and loads the data once, and does so while others prepare. Those that are
    up get work, each of them its own in the order in which it was asked.

    Args:
        hire: makes a worker, which has `Runner.prepare`.
        size: how many are hired.
    """

    def __init__(self, hire: Callable[[], Any], size: int) -> None:
        self._hire = hire
        self._asked = 0
        self._hired = [hire() for _ in range(size)]
        up = {worker.prepare.remote(bool): worker for worker in self._hired}
        ray.wait(list(up), num_returns=1)
        answered, _ = ray.wait(list(up), num_returns=size, timeout=PATIENCE_SECONDS)
        self._up = [worker for answer, worker in up.items() if answer in answered]

    @property
    def size(self) -> int:
        """How many workers are up."""
        return len(self._up)

    def ask(self, function: Callable[..., Any], *arguments: Any, last: bool = False) -> Task:
        """Have the next worker prepare something, or (`last`) the one that is last."""
        place = -1 if last else self._asked % len(self._up)
        self._asked += not last
        return self._begin((function, *arguments), self._up[place])

    def hear(self, *tasks: Task) -> list[Any]:
        """Wait for what preparations return; if a worker has died, others try once more what it had.

        Raises:
            RayError: one has failed, or the second worker has died too.
        """
        try:
            return ray.get([task.answer for task in tasks])
        except RayActorError:
            return [self._hear(task) for task in tasks]

    def shrink(self) -> None:
        """End all workers but the last one, and so leave it their memory."""
        for worker in self._hired:
            if worker is not self._up[-1]:
                ray.kill(worker)
        self._hired = self._up = self._up[-1:]

    def hand_over(self) -> list[Any]:
        """Return the workers, which are somebody else's from now on."""
        workers, self._hired, self._up = self._hired, [], []
        return workers

    def close(self) -> None:
        """End the workers."""
        for worker in self.hand_over():
            ray.kill(worker)

    def _begin(self, arguments: tuple[Any, ...], worker: Any) -> Task:
        return Task(arguments, worker, worker.prepare.remote(*arguments))

    def _hear(self, task: Task) -> Any:
        try:
            return ray.get(task.answer)
        except RayActorError:
            self._up = [worker for worker in self._up if worker is not task.worker]
            if not self._up:
                self._up = [self._hire()]
                self._hired += self._up
            return ray.get(self._begin(task.arguments, self._up[-1]).answer)
