"""Signals as a terminal leaves them, also where the tests run under nohup or as a background job."""

import signal
from contextlib import contextmanager

from hybrid_sweep.driver.interrupts import ENDING


@contextmanager
def unignored():
    """Have none of `ENDING` ignored within, by this process or by those that it starts."""
    usual = {signal.SIGINT: signal.default_int_handler}
    ignored = [number for number in ENDING if signal.getsignal(number) is signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, usual.get(number, signal.SIG_DFL))
    try:
        yield
    finally:
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)
