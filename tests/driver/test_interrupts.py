"""Interrupts that wait for the end of a block."""

import signal
import subprocess
import sys

import pytest

from hybrid_sweep.driver.interrupts import ENDING, as_interrupts, defer_interrupts, unheard_by_children


@pytest.fixture
def heard(monkeypatch):
    """Return the signals that have come through to handlers of this process; both are put back."""
    numbers, came = ENDING, []
    before = [signal.signal(number, lambda number, _: came.append(number)) for number in numbers]
    yield came
    for number, former in zip(numbers, before, strict=True):
        signal.signal(number, former)


def test_the_first_of_each_comes_through_at_the_end_and_the_next_at_once(heard):
    with defer_interrupts():
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        assert heard == []
        signal.raise_signal(signal.SIGINT)
        assert heard == [signal.SIGINT]
    assert heard == [signal.SIGINT, signal.SIGTERM, signal.SIGINT]


def test_handlers_are_then_as_before(heard):
    before = signal.getsignal(signal.SIGINT)
    with defer_interrupts():
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before


def test_a_handler_that_is_set_within_is_gone_after_it(heard):
    """Ray sets one of its own for SIGTERM, which ends the process."""
    with defer_interrupts():
        signal.raise_signal(signal.SIGTERM)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    assert heard == [signal.SIGTERM]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_the_end_of_a_job_or_a_terminal_interrupts(heard, number):
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), as_interrupts():
        signal.raise_signal(number)
    assert signal.getsignal(number) is before
    assert heard == []


def test_one_that_nohup_ignores_does_not(heard):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with as_interrupts(), defer_interrupts():
        signal.raise_signal(signal.SIGHUP)
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_children_do_not_hear_what_everybody_is_sent(heard):
    program = "import os, signal; os.kill(os.getpid(), signal.SIGHUP); print('alive')"
    with unheard_by_children(signal.SIGHUP):
        signal.raise_signal(signal.SIGHUP)
        child = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        assert heard == []
    assert (child.stdout, heard) == ("alive\n", [signal.SIGHUP])


def test_one_that_is_ignored_stays_so(heard):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with defer_interrupts():
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
