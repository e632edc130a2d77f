"""How long a sweep still takes, and how durations read."""

import pytest

from hybrid_sweep.analysis.eta import clock_text, seconds_left


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0:00"), (59.6, "1:00"), (65, "1:05"), (7265, "2:01:05")]
)
def test_durations_read_as_a_clock(seconds: float, text: str) -> None:
    assert clock_text(seconds) == text


def test_the_work_left_is_shared() -> None:
    assert seconds_left(10, [4, 4], 2, 2) == 16
    assert seconds_left(10, [25], 0, 1) == 0  # a run that takes longer than the others
    assert seconds_left(10, [], 3, 0) == 30  # all slots are gone for now
