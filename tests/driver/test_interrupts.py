"""Interrupts that wait for the end of a block."""

import signal

import pytest

from hybrid_sweep.driver.interrupts import held_back


@pytest.fixture
def heard(monkeypatch):
    """Return the signals that have come through to handlers of this process; both are put back."""
    numbers, came = (signal.SIGINT, signal.SIGTERM), []
    before = [signal.signal(number, lambda number, _: came.append(number)) for number in numbers]
    yield came
    for number, former in zip(numbers, before, strict=True):
        signal.signal(number, former)


def test_the_first_of_each_comes_through_at_the_end_and_the_next_at_once(heard):
    with held_back():
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        assert heard == []
        signal.raise_signal(signal.SIGINT)
        assert heard == [signal.SIGINT]
    assert heard == [signal.SIGINT, signal.SIGTERM, signal.SIGINT]


def test_handlers_are_then_as_before(heard):
    before = signal.getsignal(signal.SIGINT)
    with held_back():
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before


def test_a_handler_that_is_set_within_stays(heard):
    with held_back():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN


def test_one_that_is_ignored_stays_so(heard):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with held_back():
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
