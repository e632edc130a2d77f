"""A training run's curve: between its evaluations, and the time to a target."""

from math import inf

import pytest

from hybrid_sweep.measure.curve import Curve


def curve(val_loss, seconds=(0.0, 10.0, 20.0)):
    steps = [0, 100, 200][: len(val_loss)]
    return Curve(steps=steps, backward_calls=steps, seconds=list(seconds), val_loss=val_loss)


@pytest.mark.parametrize(
    ("loss", "seconds"),
    [(4.0, 0.0), (5.0, 0.0), (2.0, 5.0), (1.0, 10.0), (0.5, 15.0), (0.25, 20.0), (0.2, inf)],
)
def test_seconds_to_a_loss_are_those_of_its_first_crossing(loss, seconds):
    assert curve([4.0, 1.0, 0.25]).seconds_to(loss) == pytest.approx(seconds)


def test_the_same_in_backward_passes():
    assert curve([4.0, 1.0, 0.25]).backward_calls_to(2.0) == pytest.approx(50)
    assert curve([4.0, 1.0, 0.25]).backward_calls_to(0.2) == inf


def test_a_loss_that_was_lost_again_was_reached():
    assert curve([4.0, 1.0, 2.0]).seconds_to(1.0) == 10.0


def test_a_loss_that_is_not_above_zero_is_interpolated_linearly():
    assert curve([1.0, -1.0, -3.0]).seconds_to(0.0) == pytest.approx(5.0)
    assert curve([1.0, -1.0, -3.0]).seconds_to(-2.0) == pytest.approx(15.0)


def test_a_diverged_run_never_reaches_what_it_had_not():
    run = curve([4.0, 2.0, inf])
    assert run.seconds_to(2.0) == 10.0
    assert run.seconds_to(1.0) == inf
