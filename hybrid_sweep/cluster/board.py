"""How far preparations are: workers write it on a board, and the driver reads it while it waits."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any
from uuid import uuid4

import ray
from ray.exceptions import RayError

FIRST_LOOK_SECONDS = 5.0
"""What takes less needs no board: it is a process."""
WRITE_EVERY_SECONDS = 2.0


class Board:
    """An actor that keeps what each preparation said last."""

    def __init__(self) -> None:
        self._said: dict[str, str] = {}

    def write(self, label: str, text: str) -> None:
        """Keep what a preparation says of itself."""
        self._said[label] = text

    def read(self) -> dict[str, str]:
        """Return what each of them said last."""
        return self._said


class Sign:
    """What a preparation calls as it goes on; what it says reaches the board, once there is one.

    Args:
        board: name of the actor.
        label: what is prepared.
    """

    def __init__(self, board: str, label: str) -> None:
        self.label = label
        self._board, self._written = board, 0.0
        self._actor: Any = None

    def __call__(self, done: int, total: int) -> None:
        """Say how far it is."""
        now = time.monotonic()
        if now - self._written < WRITE_EVERY_SECONDS:
            return
        self._written = now
        with suppress(ValueError, RayError):  # no board yet
            self._actor = self._actor or ray.get_actor(self._board)
            self._actor.write.remote(self.label, f"{done} of {total}")


class Watch:
    """The driver's side: makes the board when preparations last, and reads it without waiting for it."""

    def __init__(self) -> None:
        self.board = f"board-{uuid4().hex}"
        self._began = time.monotonic()
        self._actor: Any = None
        self._answer: Any = None
        self._said: dict[str, str] = {}
        self.up = False
        """Whether the board has answered: before that, silence says nothing."""

    def look(self) -> dict[str, str]:
        """Return what preparations said last, as far as it is known by now."""
        if self._actor is None and time.monotonic() - self._began >= FIRST_LOOK_SECONDS:
            self._actor = ray.remote(Board).options(name=self.board, num_cpus=0, max_restarts=-1).remote()
        if self._actor is not None:
            if self._answer is not None and ray.wait([self._answer], timeout=0)[0]:
                with suppress(RayError):  # Ray starts it again, and it hears the next signs
                    self._said, self.up = ray.get(self._answer), True
                self._answer = None
            self._answer = self._answer or self._actor.read.remote()
        return self._said

    def close(self) -> None:
        """End the board."""
        if self._actor is not None:
            ray.kill(self._actor)
            self._actor = None
