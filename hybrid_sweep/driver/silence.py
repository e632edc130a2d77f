"""Silence: for how long each of several that work has given no sign of life."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

LONGEST_LOOK_SECONDS = 60.0
"""What counts at most between two looks: a driver that stood still has not heard what others said."""
REMEDY = "look where its code waits, or allow more with trial_timeout=SECONDS (null: no limit)"


class Silence(Generic[K]):
    """Counts seconds of silence; who is not named at a look does not work, and counts from 0 again.

    Args:
        limit: seconds that are too long; infinite for none.
    """

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self._looked: float | None = None
        self._heard: dict[K, tuple[object, float]] = {}

    def too_long(self, now: float, signs: Mapping[K, object]) -> list[K]:
        """Return those whose sign has stayed the same for longer than the limit; they count from 0 again.

        Args:
            now: seconds of a clock that only goes forward.
            signs: of each that works, something that differs once it has gone on.
        """
        passed = min(now - self._looked, LONGEST_LOOK_SECONDS) if self._looked is not None else 0.0
        before, self._looked, self._heard = self._heard, now, {}
        over = []
        for key, sign in signs.items():
            last, silent = before.get(key, (None, 0.0))
            silent = silent + passed if key in before and last == sign else 0.0
            if silent > self.limit:
                over.append(key)
                silent = 0.0
            self._heard[key] = sign, silent
        return over
