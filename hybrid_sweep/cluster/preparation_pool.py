"""PreparationPool: the workers of a sweep before it begins, which prepare what its trials need."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from typing import Any

import ray
from ray.exceptions import RayActorError

from hybrid_sweep.cluster.board import Sign, Watch
from hybrid_sweep.driver.events import Note, Preparing, SweepEvent
from hybrid_sweep.driver.silence import REMEDY, Silence
from hybrid_sweep.errors import UserError

ANSWER_TIMEOUT_SECONDS = 2.0
"""For workers that are not up when the first one is: they may have no place on the cluster as yet."""
LOOK_EVERY_SECONDS = 1.0


@dataclass(slots=True, eq=False)
class Task:
    """A preparation, the worker that has it, and the answer that it owes.

    `label` says what it is; `lost` whether its worker has ended under it before.
    """

    arguments: tuple[Any, ...]
    worker: Any
    answer: Any
    label: str = ""
    lost: bool = False


class PreparationPool:
    """Workers that are hired at once, prepare the sweep side by side, and then run its trials.

    So each of them imports torch and loads the data once, and does so while others prepare. Those that are
    up get work, each of them its own in the order in which it was asked.

    Args:
        hire: makes a worker, which has `TrialWorker.prepare`.
        size: how many are hired.
        on_event: told once a second what is being prepared, and how far it is.
        limit: seconds without a sign of life after which a preparation hangs, and its worker is killed.
    """

    def __init__(
        self,
        hire: Callable[[], Any],
        size: int,
        on_event: Callable[[SweepEvent], object] = lambda event: None,
        limit: float = inf,
    ) -> None:
        self._spawn, self._tell, self._watch = hire, on_event, Watch()
        self._silence: Silence[Any] = Silence(limit)
        self._open: list[Task] = []
        self._asked = 0
        self._prestarted = [hire() for _ in range(size)]
        up = {worker.prepare.remote(bool): worker for worker in self._prestarted}
        while not ray.wait(list(up), num_returns=1, timeout=LOOK_EVERY_SECONDS)[0]:
            on_event(Preparing(("workers are starting",)))
        answered, _ = ray.wait(list(up), num_returns=size, timeout=ANSWER_TIMEOUT_SECONDS)
        self._up = [worker for answer, worker in up.items() if answer in answered]

    @property
    def size(self) -> int:
        """How many workers are up."""
        return len(self._up)

    def ask(
        self,
        function: Callable[..., Any],
        *arguments: Any,
        label: str = "preparing",
        tells: bool = False,
        last: bool = False,
    ) -> Task:
        """Have the next worker prepare something, or (`last`) the one that is last.

        Where it `tells`, the function's last argument is what it calls with how far it is, and of what.
        """
        place = -1 if last else self._asked % len(self._up)
        self._asked += not last
        signs = [Sign(self._watch.board, label)] if tells else []
        return self._begin((function, *arguments, *signs), self._up[place], label)

    def hear(self, *tasks: Task) -> list[Any]:
        """Wait for what preparations return; if a worker has died or hung, others try once more what it had.

        Raises:
            RayError: one has failed, or the second worker has died too.
            UserError: one has hung on the second worker, too.
        """
        while True:
            answers = [task.answer for task in tasks]
            ready, waiting = ray.wait(answers, num_returns=len(answers), timeout=LOOK_EVERY_SECONDS)
            try:
                ray.get(ready)  # what has failed is told while others still work
            except RayActorError:
                self._try_again([task for task in tasks if task.answer in ready])
                continue
            if not waiting:
                return ray.get(answers)
            said = self._watch.look()
            self._tell_of([task for task in tasks if task.answer in waiting], said)
            self._end_what_hangs(said)

    def shrink(self) -> None:
        """End all workers but the last one, and so leave it their memory."""
        for worker in self._prestarted:
            if worker is not self._up[-1]:
                ray.kill(worker)
        self._prestarted = self._up = self._up[-1:]
        self._open = [task for task in self._open if task.worker is self._up[-1]]

    def hand_over(self) -> list[Any]:
        """Return the workers, which belong to the caller from now on."""
        self._watch.close()
        workers, self._prestarted, self._up = self._prestarted, [], []
        return workers

    def close(self) -> None:
        """End the workers."""
        for worker in self.hand_over():
            ray.kill(worker)

    def _begin(self, arguments: tuple[Any, ...], worker: Any, label: str = "") -> Task:
        task = Task(arguments, worker, worker.prepare.remote(*arguments), label)
        self._open.append(task)
        return task

    def _tell_of(self, tasks: list[Task], said: dict[str, str]) -> None:
        self._tell(Preparing(tuple(_progress(task.label, said) for task in tasks)))

    def _end_what_hangs(self, said: dict[str, str]) -> None:
        """Kill the workers that have given no sign of life for too long; others get what they had.

        Of a worker's preparations the first one works. Only that one has hung; the others have waited.
        """
        if self._open:
            done, _ = ray.wait([task.answer for task in self._open], num_returns=len(self._open), timeout=0)
            self._open = [task for task in self._open if task.answer not in done]
        work = {task.worker: task for task in reversed(self._open)}
        signs = {w: (t.answer, said.get(t.label)) for w, t in work.items() if t.label and self._watch.up}
        for worker in self._silence.too_long(time.monotonic(), signs):
            hung = work[worker]
            why = f"hung at {_progress(hung.label, said)}, with no sign of life for {self._silence.limit:g} s"
            if hung.lost:
                raise UserError(f"{why}, when it was tried again, too; {REMEDY}")
            self._tell(Note(f"{why}: its worker is killed, and another one tries again"))
            hung.lost = True
            ray.kill(worker)
            self._dismiss(worker)
            for task in [task for task in self._open if task.worker is worker]:
                self._give(task)

    def _try_again(self, tasks: list[Task]) -> None:
        """Give others the preparations whose workers have died.

        Raises:
            RayError: one has failed, or has been given to another worker before.
        """
        for task in tasks:
            try:
                ray.get(task.answer)
            except RayActorError:
                if task.lost:
                    raise
                task.lost = True
                self._dismiss(task.worker)
                self._give(task)

    def _dismiss(self, worker: Any) -> None:
        self._up = [other for other in self._up if other is not worker]

    def _give(self, task: Task) -> None:
        """Have another worker do it, the one that has least to do, or a new one where none is left."""
        if not self._up:
            self._up = [self._spawn()]
            self._prestarted += self._up
            self._begin((bool,), self._up[0])  # without a label: how long it takes to be up does not count
        busy = Counter(each.worker for each in self._open)
        with suppress(ValueError):
            self._open.remove(task)
        task.worker = min(reversed(self._up), key=lambda worker: busy[worker])
        task.answer = task.worker.prepare.remote(*task.arguments)
        self._open.append(task)


def _progress(label: str, said: dict[str, str]) -> str:
    return f"{label}: {said[label]}" if label in said else label
