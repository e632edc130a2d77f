"""Unit costs are measured once a machine, and again after what could change them."""

import platform

import pytest
from support.toy import Toy

from hybrid_sweep.measure import cost_cache
from hybrid_sweep.measure.cache import Cache
from hybrid_sweep.measure.cost_cache import unit_costs
from hybrid_sweep.measure.costs import COST_NAMES, UnitCosts
from hybrid_sweep.measure.fingerprint import Fingerprint
from hybrid_sweep.measure.run_cache import RunCache
from hybrid_sweep.trainer import HybridConfig

CONFIG = HybridConfig()


@pytest.fixture
def measured(monkeypatch):
    """What was measured so far: the n-th measurement costs n of everything."""
    seen = []

    def measure(workload, seed, config, steps=None, share=1.0):
        seen.append((workload, seed, config))
        return UnitCosts(**dict.fromkeys(COST_NAMES, float(len(seen))))

    monkeypatch.setattr(cost_cache, "measure_unit_costs", measure)
    return seen


@pytest.fixture
def costs(tmp_path):
    def get(config=CONFIG, fresh=False, **keywords):
        return unit_costs(Toy(), config, RunCache(Fingerprint(Toy(), keywords), Cache(tmp_path)), fresh=fresh)

    return get


def test_measured_once_then_read(measured, costs):
    assert costs() == costs()
    assert len(measured) == 1


def test_fresh_measures_and_keeps_that(measured, costs):
    costs()
    again = costs(fresh=True)
    assert again.plain_step == 2.0
    assert costs() == again


def test_another_workload_setting_or_machine_is_measured_again(measured, costs, monkeypatch):
    costs()
    costs(lr=0.1)
    costs(CONFIG.replace(predictor_members=2))
    monkeypatch.setattr(platform, "node", lambda: "another")
    costs()
    assert len(measured) == 4
    costs()
    assert len(measured) == 4


def test_a_damaged_entry_is_measured_over(measured, costs, tmp_path):
    costs()
    (file,) = (tmp_path / "costs").iterdir()
    file.write_bytes(file.read_bytes()[:-1])
    again = costs()
    assert again.plain_step == 2.0
    assert costs() == again
