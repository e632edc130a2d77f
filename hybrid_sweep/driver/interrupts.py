"""Interrupts: Ctrl-C and SIGTERM, where they can be borne."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def held_back() -> Iterator[None]:
    """Have a first Ctrl-C and a first SIGTERM wait for the end of the block; a second one does not.

    Signals that are ignored stay so, and handlers that are set within stay.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    waiting: list[int] = []

    def handler(number: int, _: object) -> None:
        waiting.append(number)
        signal.signal(number, before[number])

    both = {int(number): signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    before = {number: former for number, former in both.items() if former not in (signal.SIG_IGN, None)}
    for number in before:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, former in before.items():
            if signal.getsignal(number) is handler:
                signal.signal(number, former)
    for number in waiting:
        signal.raise_signal(number)
