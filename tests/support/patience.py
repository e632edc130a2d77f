"""How long a test waits for what must come: until it hangs, however busy the machine is."""

import time

HANG_SECONDS = 900
"""No bound on speed: nothing here takes a third of it on a busy machine, and what hangs must end."""


def until(condition, pause=0.1):
    """Return the first true value of `condition()`; fail where it hangs."""
    deadline = time.monotonic() + HANG_SECONDS
    while not (value := condition()):
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(pause)
    return value
