"""The stability bound against the published table; the real predictors are held against it beside them."""

import pytest

from hybrid_sweep.errors import UserError
from hybrid_sweep.trainer.stability import BOUNDED, is_stable, max_stable_ratio, spectral_radius, stride

# docs/design-notes.md, Formulas: persistent EMA updated every step, at ηλ ≤ 1.5 and at the edge of stability;
# cells that are lower bounds there ("≥ 16") are left out
TABLE = {
    0.90: [(5, 4.5, 0.5), (10, 2.75, 0.75), (20, 2.25, 1.0), (40, 2.25, 1.75)],
    0.95: [(5, 8.25, 1.0), (10, 4.5, 4.5), (20, 2.75, 2.75), (40, 2.25, 2.25)],
    0.97: [(5, 13.0, 1.5), (10, 7.25, 7.25), (20, 4.0, 4.0), (40, 2.5, 2.5)],
    0.985: [(10, 14.0, 14.0), (20, 7.25, 7.25), (40, 4.0, 4.0)],
    0.99: [(20, 10.5, 10.5), (40, 5.75, 5.75)],
}


@pytest.mark.parametrize(("decay", "cell"), [(decay, cell) for decay, row in TABLE.items() for cell in row])
def test_an_average_of_every_step_has_the_bounds_of_the_table(decay, cell):
    full_steps, usual, edge = cell
    for eta_lambda, limit in ((1.5, usual), (1.95, edge)):
        found = max_stable_ratio("ema", decay, full_steps, eta_lambda, every=1)
        assert limit <= found < limit + 0.26  # the table's steps are quarters, the last stable one


def test_the_trainers_strides_cost_little_stability():
    assert [stride(k) for k in (1, 2, 5, 10, 15, 20, 100)] == [1, 1, 2, 5, 7, 10, 10]
    assert max_stable_ratio("ema", 0.97, 20) == pytest.approx(3.92, abs=0.02)
    assert max_stable_ratio("ema", 0.97, 10) == pytest.approx(7.12, abs=0.02)


def test_without_a_jump_a_cycle_is_its_real_steps():
    for name in BOUNDED:
        radius = spectral_radius(name, 0.9, 10, 0.0, [0.001, 0.01])
        assert radius == pytest.approx([0.999**10, 0.99**10])


def test_bounds_order_the_outer_momenta():
    nesterov, momentum = (max_stable_ratio(name, 0.97, 20) for name in ("outer_nesterov", "outer_momentum"))
    assert nesterov == pytest.approx(1.6, abs=0.03)
    assert momentum == pytest.approx(3.37, abs=0.03)
    assert max_stable_ratio("ema_nesterov", 0.97, 20, 1.95) == 64
    assert max_stable_ratio("ema_nesterov", 0.97, 10, 1.95) == 64


def test_a_gate_counts_as_a_shorter_horizon():
    assert not is_stable("ema", 0.97, 20, 150, 1.5)
    assert is_stable("ema", 0.97, 20, 0.5 * 150, 1.5)


def test_a_predictor_without_a_bound_is_refused():
    with pytest.raises(UserError, match="unknown predictor with a stability bound 'dmd'; known: ema, "):
        spectral_radius("dmd", 0.9, 10, 20.0, 0.1)
