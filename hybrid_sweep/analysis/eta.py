"""How long a sweep still takes, and how durations read."""

from __future__ import annotations

from collections.abc import Iterable


def seconds_left(each: float, ages: Iterable[float], waiting: int, at_once: int) -> float:
    """Estimate the time left: the work that remains, shared by the runs at once.

    Args:
        each: seconds of a run.
        ages: seconds that each run which is under way has taken so far.
        waiting: runs that have not started.
        at_once: runs that go on side by side.
    """
    started = sum(max(each - age, 0.0) for age in ages)
    return (started + each * max(waiting, 0)) / max(at_once, 1)


def clock_text(seconds: float) -> str:
    """Return `1:05` or `2:01:05`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
