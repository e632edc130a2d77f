"""Crew: the workers of a sweep before it begins, which prepare what its trials need."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayActorError


@dataclass(slots=True)
class Task:
    """A preparation, the place of the worker that has it, that worker, and the answer that it owes."""

    arguments: tuple[Any, ...]
    place: int
    worker: Any
    answer: Any


class Crew:
    """Workers that are hired at once, prepare the sweep side by side, and then run its trials.

    So each of them imports torch and loads the data once, and does so while others prepare. A worker does
    its preparations one after another, in the order in which it was asked.

    Args:
        hire: makes a worker, which has `Runner.prepare`.
        size: how many there are.
    """

    def __init__(self, hire: Callable[[], Any], size: int) -> None:
        self._hire = hire
        self._asked = 0
        self.workers = [hire() for _ in range(size)]

    def ask(self, function: Callable[..., Any], *arguments: Any, last: bool = False) -> Task:
        """Have the next worker prepare something, or (`last`) the last one."""
        place = len(self.workers) - 1 if last else self._asked % len(self.workers)
        self._asked += not last
        return self._begin((function, *arguments), place)

    def hear(self, task: Task) -> Any:
        """Wait for what a preparation returns; where its worker has died, another one tries once more.

        Raises:
            RayError: it has failed, or that worker has died too.
        """
        try:
            return ray.get(task.answer)
        except RayActorError:
            if self.workers[task.place] is task.worker:
                self.workers[task.place] = self._hire()
            return ray.get(self._begin(task.arguments, task.place).answer)

    def hand_over(self) -> list[Any]:
        """Return the workers, which are somebody else's from now on."""
        workers, self.workers = self.workers, []
        return workers

    def close(self) -> None:
        """End the workers."""
        for worker in self.workers:
            ray.kill(worker)
        self.workers.clear()

    def _begin(self, arguments: tuple[Any, ...], place: int) -> Task:
        worker = self.workers[place]
        return Task(arguments, place, worker, worker.prepare.remote(*arguments))
