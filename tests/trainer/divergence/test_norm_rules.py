"""A norm is off by the limit and by its own scatter; what lasts is the new baseline."""

import numpy as np
import pytest

from hybrid_sweep.trainer.divergence.norm_rules import CalibratedNormRule, SeedNormRule


def readings(rule, norms):
    return [rule.observe(float(norm)) for norm in norms]


def test_norms_that_spread_over_orders_of_magnitude_are_not_off():
    """A small batch late in training: a standard deviation of 2 in the logarithm."""
    norms = np.random.default_rng(0).lognormal(0, 2, 4000)
    off = [reading for reading in readings(CalibratedNormRule(10, 0.01), norms) if reading is not None]
    assert len(off) <= 4
    assert sum(reading is not None for reading in readings(SeedNormRule(10, 0.01), norms)) > 40


def test_a_norm_that_falls_with_an_exponential_loss_has_not_vanished():
    norms = np.random.default_rng(0).lognormal(0, 0.2, 600) * 0.95 ** np.arange(600)
    assert readings(CalibratedNormRule(10, 0.01), norms) == [None] * 600


@pytest.mark.parametrize("factor", [100.0, 0.001, 0.0])
def test_what_is_over_again_has_left_no_trace(factor):
    norms = np.random.default_rng(0).lognormal(0, 0.2, 150)
    norms[100:115] *= factor
    found = readings(CalibratedNormRule(10, 0.01), norms)
    assert [i for i, reading in enumerate(found) if reading is not None] == list(range(100, 115))


@pytest.mark.parametrize("factor", [100.0, 0.001, 0.0])
def test_what_lasts_is_the_new_baseline(factor):
    norms = np.random.default_rng(0).lognormal(0, 0.2, 300)
    norms[100:] *= factor
    found = readings(CalibratedNormRule(10, 0.01), norms)
    assert [i for i, reading in enumerate(found) if reading is not None][:20] == list(range(100, 120))
    assert factor == 0.0 or found[120:] == [None] * 180


def test_nothing_is_said_before_there_is_a_baseline():
    assert readings(CalibratedNormRule(10, 0.01), [1e-6] * 5 + [1.0] * 14) == [None] * 19
    assert readings(SeedNormRule(10, 0.01), [1e-6] * 5 + [1.0] * 5)[:10] == [None] * 10
