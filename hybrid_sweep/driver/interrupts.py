"""Interrupts: Ctrl-C, SIGTERM and SIGHUP, where they can be borne."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

_set_handler = signal.signal
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What ends a program: Ctrl-C; a job, container or service that is to stop; a terminal that is closed."""


@contextmanager
def defer_interrupts() -> Iterator[None]:
    """Have the first of each of `ENDING` wait for the end of the block; a second one does not.

    Signals that are ignored stay so. A library that sets a handler of its own for one of them within the
    block, as Ray does while it starts, is not obeyed: that handler would end what has half started.
    """
    before = _heard(ENDING)
    waiting: list[int] = []

    def handler(number: int, _: object) -> None:
        waiting.append(number)
        _set_handler(number, before[number])

    def set_others(number: int, its: Any) -> Any:
        return signal.getsignal(number) if number in before else _set_handler(number, its)

    for number in before:
        _set_handler(number, handler)
    signal.signal = cast(Any, set_others)
    try:
        yield
    finally:
        signal.signal = _set_handler
        for number, former in before.items():
            _set_handler(number, former)
    for number in waiting:
        signal.raise_signal(number)


@contextmanager
def as_interrupts() -> Iterator[None]:
    """Have SIGTERM and SIGHUP wind things down within the block as Ctrl-C does, unless they are ignored.

    Raises:
        KeyboardInterrupt: when one of them comes.
    """
    before = _heard((signal.SIGTERM, signal.SIGHUP))
    for number in before:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)


@contextmanager
def unheard_by_children(number: signal.Signals) -> Iterator[None]:
    """Have processes that this thread starts within the block not hear a signal that is sent to all.

    One that comes to this process meanwhile is heard at the end of the block.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _heard(numbers: tuple[signal.Signals, ...]) -> dict[int, Any]:
    """Return the handlers of those that are not ignored; none off the main thread: no other may set them."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    handlers = {int(number): signal.getsignal(number) for number in numbers}
    return {n: former for n, former in handlers.items() if former not in (signal.SIG_IGN, None)}
