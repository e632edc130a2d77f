"""Unit costs: what counted work comes to, and that measuring meets every kind of work."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.toy import Toy

from hybrid_sweep.measure.cache import Cache
from hybrid_sweep.measure.cost_cache import unit_costs_of_all
from hybrid_sweep.measure.costs import COST_NAMES, FIELD_OF, UnitCosts, measure_unit_costs
from hybrid_sweep.measure.fingerprint import Fingerprint
from hybrid_sweep.measure.reference import start
from hybrid_sweep.measure.run_cache import RunCache
from hybrid_sweep.spec.sweep import UnitCosts as SpecUnitCosts
from hybrid_sweep.trainer import HybridConfig, HybridTrainer, cost_meter
from hybrid_sweep.trainer.cost_meter import Work
from hybrid_sweep.trainer.forecast.dynamics import RssmLite
from hybrid_sweep.trainer.planner import JumpPlanner
from hybrid_sweep.trainer.recovery import Recovery

COSTS = UnitCosts(**{name: 10**place for place, name in enumerate(FIELD_OF.values())})
NAMED = {kind: number for number, kind in enumerate(Work, 1)}


def test_total_adds_up_calls_times_seconds():
    assert COSTS.total({kind: NAMED[kind] for kind in Work}) == 87_654_321


@given(st.fixed_dictionaries({kind: st.integers(0, 10**6) for kind in Work}), st.sampled_from(list(Work)))
def test_one_unit_more_costs_its_price_more(calls, kind):
    more = calls | {kind: calls[kind] + 1}
    assert COSTS.total(more) - COSTS.total(calls) == COSTS.to_dict()[FIELD_OF[kind]]


def test_every_kind_of_work_has_a_price_that_a_sweep_file_can_freeze():
    assert set(FIELD_OF) == set(Work)
    assert set(FIELD_OF.values()) == set(COST_NAMES) == set(SpecUnitCosts.model_fields)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"correct_steps": 0, "confidence_threshold": 0.999, "minimum_cosine": 0.9},
        {"correction_interval": 5, "horizon_rule": "original", "stop_fraction": 0.5, "guard_tolerance": 1.01},
    ],
)
def test_measuring_meets_every_kind_of_work_whatever_the_sweep_fixes(settings):
    costs = measure_unit_costs(Toy(), 0, HybridConfig(max_predict_steps=30, **settings))
    assert all(seconds > 0 for seconds in costs.to_dict().values())


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still, but for what learning, checkpoints, jumps and passes take."""
    now = [0.0]

    def takes(owner, name, seconds):
        method = getattr(owner, name)

        def slow(*arguments, **options):
            now[0] += seconds
            return method(*arguments, **options)

        monkeypatch.setattr(owner, name, slow)

    monkeypatch.setattr(cost_meter.time, "perf_counter", lambda: now[0])
    takes(RssmLite, "train", 7.0)
    takes(Recovery, "take_checkpoint", 5.0)
    takes(JumpPlanner, "jump", 0.25)
    takes(Toy, "loss", 1.0)
    takes(Toy, "batch", 0.125)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"correction_interval": 4},
        {"correct_steps": 0},
        {"confidence_threshold": 0.999},
        {"cycle_mode": "chained"},
    ],
    ids=str,
)
def test_counted_work_costs_what_it_takes_whatever_a_run_is_made_of(clock, settings):
    base = HybridConfig(
        warmup_steps=20, full_steps=10, max_predict_steps=20, confidence_threshold=0.001, horizon_rule="fixed"
    )
    unit = measure_unit_costs(Toy(), 0, base)
    workload = Toy()
    plain = start(workload, 0)
    trainer = HybridTrainer(plain.model, plain.optimizer, base.replace(**settings), loss_fn=workload.loss)
    trainer.run(lambda step: workload.batch(0, step), 120)
    assert unit.total(trainer.meter.calls) == pytest.approx(sum(trainer.meter.seconds().values()), abs=1.0)


def slowed(monkeypatch, seconds):
    """Return how often a loss was taken since; each takes so long, and nothing else takes any time."""
    now, taken = [0.0], []
    usual = Toy.loss

    def loss(workload, model, batch):
        now[0] += seconds
        taken.append(seconds)
        return usual(workload, model, batch)

    monkeypatch.setattr(Toy, "loss", loss)
    for clock in ("perf_counter", "monotonic"):
        monkeypatch.setattr(cost_meter.time, clock, lambda: now[0])
    return taken


@pytest.mark.parametrize("steps", [600, 2_000, 100_000])
def test_measuring_takes_less_than_a_tenth_of_plain_training(monkeypatch, steps):
    taken = slowed(monkeypatch, 1.0)
    unit = measure_unit_costs(Toy(), 0, HybridConfig(max_predict_steps=30, full_steps=10), steps)
    assert unit.plain_step == pytest.approx(1.0)
    assert len(taken) <= 0.1 * steps


def test_where_steps_are_quick_every_cycle_is_measured(monkeypatch):
    config = HybridConfig(max_predict_steps=30, full_steps=10)
    taken = slowed(monkeypatch, 1e-6)
    measure_unit_costs(Toy(), 0, config, 300)
    bounded = len(taken)
    measure_unit_costs(Toy(), 0, config)
    assert len(taken) == 2 * bounded


def test_settings_that_there_is_no_time_for_are_left_out(monkeypatch, tmp_path):
    configs = {str(n): HybridConfig(max_predict_steps=30, full_steps=n) for n in range(10, 20)}
    runs = RunCache(Fingerprint(Toy(), {}), Cache(tmp_path))
    taken, told = slowed(monkeypatch, 1.0), []
    found = unit_costs_of_all(
        Toy(), configs, runs, 1000, fresh=False, on_progress=lambda *progress: told.append(progress)
    )
    assert "10" in found
    assert len(found) < len(configs)
    assert len(taken) <= 100
    assert told == [(n, 10) for n in range(10)]
    slowed(monkeypatch, 1e-6)
    again = unit_costs_of_all(Toy(), configs, runs, 1000, fresh=False)
    assert list(again) == list(configs)
    assert again["10"] == found["10"]
