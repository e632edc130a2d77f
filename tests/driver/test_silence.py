"""Who works and gives no sign of life for too long is found, and no other worker."""

import pytest

from hybrid_sweep.driver.silence import LONGEST_LOOK_SECONDS, Silence


def over(limit, looks):
    """Return who was silent for too long, by the time of the look."""
    silence = Silence(limit)
    return {now: late for now, signs in looks if (late := silence.too_long(now, signs))}


def test_the_same_sign_for_longer_than_the_limit_is_silence_and_counts_again():
    looks = [(now, {"a": 1, "b": now}) for now in range(0, 50, 5)]
    assert over(10, looks) == {15: ["a"], 30: ["a"], 45: ["a"]}


def test_who_does_not_work_is_not_silent():
    looks = [(now, {} if now == 10 else {"a": None}) for now in range(0, 35, 5)]
    assert over(10, looks) == {30: ["a"]}


def test_a_driver_that_stood_still_has_not_listened():
    assert over(2 * LONGEST_LOOK_SECONDS, [(now, {"a": 1}) for now in (0, 1e6, 2e6)]) == {}
    assert over(2 * LONGEST_LOOK_SECONDS, [(now, {"a": 1}) for now in (0, 1e6, 2e6, 3e6)]) == {3e6: ["a"]}


@pytest.mark.parametrize("limit", [float("inf"), 1e9])
def test_without_a_limit_no_one_is(limit):
    assert over(limit, [(now, {"a": 1}) for now in range(0, 100_000, 50)]) == {}
