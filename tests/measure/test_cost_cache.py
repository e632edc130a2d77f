"""Unit costs are measured once a machine, and anew for whatever could change them."""

import inspect

import platformdirs
import pytest
from support.toy import Toy

from hybrid_sweep.measure import cost_cache
from hybrid_sweep.measure.cost_cache import unit_costs
from hybrid_sweep.measure.costs import COST_NAMES, UnitCosts
from hybrid_sweep.trainer import HybridConfig

CONFIG = HybridConfig()


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """What was measured so far: the n-th measurement costs n of everything."""
    seen = []

    def measure(workload, seed, config):
        seen.append((workload, seed, config))
        return UnitCosts(**dict.fromkeys(COST_NAMES, float(len(seen))))

    monkeypatch.setattr(platformdirs, "user_cache_path", lambda name: tmp_path / name)
    monkeypatch.setattr(cost_cache, "measure_unit_costs", measure)
    return seen


def test_measured_once_then_read(measured):
    first = unit_costs(Toy(), {}, CONFIG, fresh=False)
    assert unit_costs(Toy(), {}, CONFIG, fresh=False) == first
    assert len(measured) == 1


def test_fresh_measures_and_keeps_that(measured):
    unit_costs(Toy(), {}, CONFIG, fresh=False)
    again = unit_costs(Toy(), {}, CONFIG, fresh=True)
    assert again.plain_step == 2.0
    assert unit_costs(Toy(), {}, CONFIG, fresh=False) == again


def test_other_keywords_settings_code_or_threads_are_measured_anew(measured, tmp_path, monkeypatch):
    def count():
        unit_costs(Toy(), keywords, config, fresh=False)
        return len(measured)

    keywords, config = {}, CONFIG
    assert count() == 1
    keywords = {"lr": 0.1}
    assert count() == 2
    config = CONFIG.replace(predictor_members=2)
    assert count() == 3
    edited = tmp_path / "toy.py"
    edited.write_text("# edited")
    with monkeypatch.context() as patch:
        patch.setattr(inspect, "getfile", lambda cls: str(edited))
        assert count() == 4
    with monkeypatch.context() as patch:
        patch.setattr(cost_cache.torch, "get_num_threads", lambda: 99)
        assert count() == 5
    assert count() == 5


@pytest.mark.parametrize("damage", ["", "{", "[]", "{}", '{"batch": 1.0}', '{"batch": null}'])
def test_a_damaged_file_is_measured_over(measured, tmp_path, damage):
    good = unit_costs(Toy(), {}, CONFIG, fresh=False)
    (file,) = (tmp_path / "hybrid-sweep" / "unit_costs").iterdir()
    file.write_text(damage)
    again = unit_costs(Toy(), {}, CONFIG, fresh=False)
    assert again.plain_step == 2.0 != good.plain_step
    assert unit_costs(Toy(), {}, CONFIG, fresh=False) == again
