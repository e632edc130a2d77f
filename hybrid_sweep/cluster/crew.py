"""Crew: the workers of a sweep before it begins, which prepare what its trials need."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayActorError

from hybrid_sweep.cluster.board import Sign, Watch
from hybrid_sweep.driver.events import Preparing, SweepEvent

PATIENCE_SECONDS = 2.0
"""For workers that are not up when the first one is: they may have no place on the cluster as yet."""
LOOK_EVERY_SECONDS = 1.0


@dataclass(slots=True)
class Task:
    """A preparation, the worker that has it, and the answer that it owes; `label` says what it is."""

    arguments: tuple[Any, ...]
    worker: Any
    answer: Any
    label: str = ""


class Crew:
    """Workers that are hired at once, prepare the sweep side by side, and then run its trials.

    So each of them imports torch and loads the data once, and does so while others prepare. Those that are
    up get work, each of them its own in the order in which it was asked.

    Args:
        hire: makes a worker, which has `Runner.prepare`.
        size: how many are hired.
        tell: told once a second what is being prepared, and how far it is.
    """

    def __init__(
        self, hire: Callable[[], Any], size: int, tell: Callable[[SweepEvent], object] = lambda event: None
    ) -> None:
        self._hire, self._tell, self._watch = hire, tell, Watch()
        self._asked = 0
        self._hired = [hire() for _ in range(size)]
        up = {worker.prepare.remote(bool): worker for worker in self._hired}
        while not ray.wait(list(up), num_returns=1, timeout=LOOK_EVERY_SECONDS)[0]:
            tell(Preparing(("workers are starting",)))
        answered, _ = ray.wait(list(up), num_returns=size, timeout=PATIENCE_SECONDS)
        self._up = [worker for answer, worker in up.items() if answer in answered]

    @property
    def size(self) -> int:
        """How many workers are up."""
        return len(self._up)

    def ask(self, function: Callable[..., Any], *arguments: Any, last: bool = False, label: str = "") -> Task:
        """Have the next worker prepare something, or (`last`) the one that is last.

        With a `label` the function's last argument is what it calls with how far it is, and of what.
        """
        place = -1 if last else self._asked % len(self._up)
        self._asked += not last
        signs = [Sign(self._watch.board, label)] if label else []
        return self._begin((function, *arguments, *signs), self._up[place], label)

    def hear(self, *tasks: Task) -> list[Any]:
        """Wait for what preparations return; if a worker has died, others try once more what it had.

        Raises:
            RayError: one has failed, or the second worker has died too.
        """
        answers = [task.answer for task in tasks]
        try:
            while True:
                ready, waiting = ray.wait(answers, num_returns=len(answers), timeout=LOOK_EVERY_SECONDS)
                ray.get(ready)  # what has failed is told while others still work
                if not waiting:
                    return ray.get(answers)
                self._tell_of([task for task in tasks if task.answer in waiting])
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
        self._watch.close()
        workers, self._hired, self._up = self._hired, [], []
        return workers

    def close(self) -> None:
        """End the workers."""
        for worker in self.hand_over():
            ray.kill(worker)

    def _begin(self, arguments: tuple[Any, ...], worker: Any, label: str = "") -> Task:
        return Task(arguments, worker, worker.prepare.remote(*arguments), label)

    def _tell_of(self, tasks: list[Task]) -> None:
        said = self._watch.look()
        labels = [task.label or "preparing" for task in tasks]
        self._tell(
            Preparing(tuple(f"{label}: {said[label]}" if label in said else label for label in labels))
        )

    def _hear(self, task: Task) -> Any:
        try:
            return ray.get(task.answer)
        except RayActorError:
            self._up = [worker for worker in self._up if worker is not task.worker]
            if not self._up:
                self._up = [self._hire()]
                self._hired += self._up
            return ray.get(self._begin(task.arguments, self._up[-1]).answer)
