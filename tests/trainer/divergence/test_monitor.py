"""Six signals: each finds its planted fault and is silent on plain noise; limits, levels and state."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybrid_sweep.errors import UserError
from hybrid_sweep.trainer.divergence.loss_rules import LossReading, SeedLossRule
from hybrid_sweep.trainer.divergence.monitor import (
    LEVEL_ACTION,
    Action,
    DivergenceLevel,
    DivergenceMonitor,
    DivergenceSignal,
)

WARNING = DivergenceLevel.WARNING
Series = np.ndarray


def gaussian(rng: np.random.Generator, steps: int) -> Series:
    return rng.standard_normal(steps)


def lognormal(rng: np.random.Generator, steps: int) -> Series:
    """Right-skewed, as mini-batch losses are; mean 0, deviation 1."""
    shape = 0.3
    variance = math.expm1(shape**2)
    return (rng.lognormal(-(shape**2) / 2, shape, steps) - 1) / math.sqrt(variance)


def constant(steps: int) -> Series:
    return np.ones(steps)


def decaying(steps: int) -> Series:
    return 2.3 * np.exp(-np.arange(steps) / 300) + 0.1


NOISE = [
    pytest.param(noise, level, id=f"{noise.__name__}-{level.__name__}")
    for noise in (gaussian, lognormal)
    for level in (constant, decaying)
]


def watch(
    losses: Iterable[float], norms: Iterable[float] | None = None, **settings: Any
) -> list[DivergenceSignal]:
    monitor = DivergenceMonitor(**settings)
    losses = np.asarray(losses).tolist()
    norms = [1.0] * len(losses) if norms is None else np.asarray(norms).tolist()
    return [monitor.observe(loss, norm) for loss, norm in zip(losses, norms, strict=True)]


def warned(signals: Iterable[DivergenceSignal]) -> list[str]:
    return [signal.name for signal in signals if signal.level >= WARNING]


# Faults and noise: the contract's bar

ONSET, PATIENCE = 200, 20
Fault = Callable[[Series, Series, float], None]  # losses and norms from the onset on, sigma


def a_rise(losses: Series, norms: Series, sigma: float) -> None:
    losses += 4 * sigma


def an_alternation(losses: Series, norms: Series, sigma: float) -> None:
    losses += 4 * sigma * (-1.0) ** np.arange(PATIENCE)


def a_swing_of_period_4(losses: Series, norms: Series, sigma: float) -> None:
    losses += 4 * sigma * np.sin(2 * np.pi * (np.arange(PATIENCE) + 0.5) / 4)


def a_swing_of_period_8(losses: Series, norms: Series, sigma: float) -> None:
    losses += 4 * sigma * np.sin(2 * np.pi * np.arange(PATIENCE) / 8)


def a_growing_swing(losses: Series, norms: Series, sigma: float) -> None:
    k = np.arange(PATIENCE)
    losses += (2 + 0.3 * k) * sigma * np.sin(2 * np.pi * k / 5)


def an_explosion(losses: Series, norms: Series, sigma: float) -> None:
    norms *= 10.1


def a_vanishing(losses: Series, norms: Series, sigma: float) -> None:
    norms *= 0.009


def an_overflow(losses: Series, norms: Series, sigma: float) -> None:
    losses[3] = np.inf


FAULTS = [
    (a_rise, "loss_deviation"),
    (an_alternation, "loss_oscillation"),
    (a_swing_of_period_4, "loss_oscillation"),
    (a_swing_of_period_8, "loss_oscillation"),
    (a_growing_swing, "loss_oscillation"),
    (an_explosion, "gradient_explosion"),
    (a_vanishing, "gradient_vanishing"),
    (an_overflow, "non_finite"),
]


@pytest.mark.parametrize(("fault", "name"), FAULTS, ids=[fault.__name__ for fault, _ in FAULTS])
@pytest.mark.parametrize(("noise", "level"), NOISE)
def test_a_planted_fault_is_found_within_20_steps_in_95_percent_of_runs(
    fault: Fault, name: str, noise: Callable[..., Series], level: Callable[..., Series]
) -> None:
    found = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        steps = ONSET + PATIENCE
        losses = level(steps) * (1 + 0.1 * noise(rng, steps))
        norms = rng.lognormal(0, 0.2, steps)
        fault(losses[ONSET:], norms[ONSET:], 0.1 * level(steps)[ONSET])
        found += name in warned(watch(losses, norms)[ONSET:])
    assert found >= 190


@pytest.mark.parametrize("rule", ["calibrated", "original"])
@pytest.mark.parametrize(("noise", "level"), NOISE)
def test_a_prediction_that_is_half_off_is_found(
    rule: Any, noise: Callable[..., Series], level: Callable[..., Series]
) -> None:
    rng = np.random.default_rng(0)
    monitor = DivergenceMonitor(rule=rule)
    for loss in level(200) * (1 + 0.05 * noise(rng, 200)):
        signal = monitor.observe(loss, predicted_loss=1.5 * loss, warmup=False)
        assert signal.level >= DivergenceLevel.CAUTION
        assert signal.predicted_loss == 1.5 * loss


@pytest.mark.parametrize(("noise", "level"), NOISE)
def test_1000_steps_of_noise_raise_no_warning_in_100_runs(
    noise: Callable[..., Series], level: Callable[..., Series]
) -> None:
    warnings = []
    for seed in range(100):
        rng = np.random.default_rng(1000 + seed)
        losses = level(1000) * (1 + 0.2 * noise(rng, 1000))
        warnings += warned(watch(losses, rng.lognormal(0, 0.4, 1000)))
    assert warnings == []


def test_mini_batch_scatter_of_20_percent_stays_quiet_for_2000_steps() -> None:
    for seed in range(50):
        rng = np.random.default_rng(seed)
        level = 2.1 * np.exp(-np.arange(2000) / 400) + 0.2
        losses = level * (1 + 0.2 * lognormal(rng, 2000))
        assert warned(watch(losses, np.sqrt(level) * rng.lognormal(0, 0.4, 2000))) == []


def test_jumps_that_lower_the_loss_and_shake_it_at_first_stay_quiet() -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        monitor = DivergenceMonitor()
        names: list[str] = []
        for cycle in range(30):
            level = 2 * 0.93**cycle + 0.1
            for k in range(20):
                jumped = k + 1 if cycle else None
                loss = level * (1 + (0.5 * math.exp(-k / 1.5) if jumped else 0)) * (1 + rng.normal(0, 0.1))
                norm = rng.lognormal(0, 0.2) * (15 if jumped == 1 else 1)
                names += warned([monitor.observe(loss, norm, steps_since_jump=jumped)])
        assert names == []


def test_a_higher_loss_after_a_jump_is_found_on_settled_steps() -> None:
    found = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        monitor = DivergenceMonitor()
        for loss in rng.normal(1, 0.1, 100):
            monitor.observe(loss, 1.0)
        signals = [
            monitor.observe(loss, 1.0, steps_since_jump=k)
            for k, loss in enumerate(rng.normal(1.4, 0.1, 20), start=1)
        ]
        assert all(math.isnan(signal.deviation_sigmas) for signal in signals[:2])
        found += "loss_deviation" in warned(signals)
    assert found >= 95


def test_forward_passes_after_a_jump_are_not_held_against_it() -> None:
    monitor = DivergenceMonitor()
    for loss in np.random.default_rng(0).normal(1, 0.1, 100):
        monitor.observe(loss, 1.0)
    for k in range(1, 40):
        signal = monitor.observe(1.8, steps_since_jump=k, confidence=0.5)
        assert (signal.level, signal.confidence) == (DivergenceLevel.NORMAL, 0.5)
    assert monitor.observe(math.nan, steps_since_jump=40).action is Action.ROLLBACK
    assert math.isnan(monitor.observe(1.8, 1.0, steps_since_jump=41).deviation_sigmas)


@pytest.mark.parametrize("rule", ["calibrated", "original"])
def test_a_higher_threshold_fires_less_often_on_the_same_noise(rule: Any) -> None:
    rng = np.random.default_rng(0)
    losses = rng.normal(1, 0.1, 4000) + 0.15 * np.repeat(rng.integers(0, 3, 40), 100)
    counts = [
        warned(watch(losses, rule=rule, threshold=threshold)).count("loss_deviation")
        for threshold in (2.2, 4.0)
    ]
    assert counts[0] > 2 * counts[1]


def test_one_event_is_one_alarm() -> None:
    losses = np.random.default_rng(0).normal(1, 0.05, 400)
    losses[200:] += 0.4
    assert warned(watch(losses)) == ["loss_deviation"]


def test_a_loss_that_doubles_and_stays_is_critical() -> None:
    losses = np.random.default_rng(0).normal(1, 0.05, 300)
    losses[200:] *= 2.5
    worst = max(watch(losses), key=lambda signal: signal.level)
    assert (worst.level, worst.name, worst.action) == (
        DivergenceLevel.CRITICAL,
        "loss_deviation",
        Action.ROLLBACK,
    )


@pytest.mark.parametrize("fall", [0.9, 0.5, 0.1])
def test_a_sudden_fall_of_the_loss_is_no_fault(fall: float) -> None:
    for seed in range(20):
        losses = np.random.default_rng(seed).normal(1, 0.05, 400)
        losses[200:] *= fall
        assert warned(watch(losses)) == []


# Gradient norms


@pytest.mark.parametrize("rule", ["calibrated", "original"])
@pytest.mark.parametrize(
    ("factor", "name", "action"),
    [
        (9.9, "none", Action.CONTINUE),
        (10.1, "gradient_explosion", Action.REDUCE_RATIO),
        (101.0, "gradient_explosion", {"calibrated": Action.ROLLBACK, "original": Action.REDUCE_RATIO}),
        (0.011, "none", Action.CONTINUE),
        (0.009, "gradient_vanishing", Action.INCREASE_FULL),
    ],
)
def test_the_gradient_limits(rule: Any, factor: float, name: str, action: Any) -> None:
    signals = watch([1.0] * 61, [2.0] * 60 + [2.0 * factor], rule=rule)
    assert warned(signals[:-1]) == []
    expected = action[rule] if isinstance(action, dict) else action
    assert (signals[-1].name, signals[-1].action) == (name, expected)


@pytest.mark.parametrize(
    ("norms", "fires"),
    [
        ([20.0] * 7 + [1.0], []),
        ([20.0] * 9, [8, 9]),
        ([31.0, 1.0, 1.0], [1]),
        ([1.0] * 9 + [11.0] * 2, [10, 11]),
        ([0.02] * 9, [8, 9]),
        ([0.04] * 19, []),
        ([0.009, 1.0], [1]),
    ],
)
def test_a_large_norm_right_after_a_jump_must_last_or_be_very_large(
    norms: list[float], fires: list[int]
) -> None:
    monitor = DivergenceMonitor()
    for _ in range(60):
        monitor.observe(1.0, 1.0, gradient_sample=1.0)
    signals = [
        monitor.observe(1.0, real=True, gradient_sample=norm, steps_since_jump=k)
        for k, norm in enumerate(norms, start=1)
    ]
    assert [k for k, signal in enumerate(signals, start=1) if signal.level] == fires


def test_a_converged_quadratic_has_not_vanished() -> None:
    weight, losses, norms = 1.0, [], []
    for step in range(400):
        losses.append(weight**2 / 2)
        norms.append(abs(weight))
        weight *= 0.95 if step > 60 else 1.0
    assert losses[-1] < 1e-4 * losses[0]
    assert norms[-1] < 0.01 * norms[0]
    assert warned(watch(losses, norms)) == []


# The literal rules


def test_the_literal_rule_sends_a_spike_of_4_sigma_to_full() -> None:
    losses = np.random.default_rng(3).normal(1, 0.1, 300)
    losses[250] = 1.4
    signal = watch(losses, rule="original")[250]
    assert signal.name == "loss_deviation"
    assert signal.action >= Action.FORCE_FULL
    assert signal.deviation_sigmas == pytest.approx(4, abs=0.5)


def literal_readings(seed: int) -> list[LossReading]:
    rule = SeedLossRule(3.0)
    return [rule.observe(loss) for loss in np.random.default_rng(seed).standard_normal(10_000).tolist()]


def test_the_literal_rates_on_iid_noise_are_those_of_the_design_notes() -> None:
    readings = [reading for seed in range(3) for reading in literal_readings(seed)]
    deviating = np.mean([reading.severity > 1 for reading in readings])
    oscillating = np.mean([reading.oscillating for reading in readings])
    assert deviating == pytest.approx(0.0027, abs=0.001)
    assert oscillating == pytest.approx(0.45, abs=0.02)


def test_the_literal_average_is_not_numb_after_a_large_first_loss() -> None:
    losses = np.random.default_rng(0).normal(100, 0.1, 80)
    losses[70] = 101
    assert watch(losses, rule="original")[70].level >= WARNING


def test_the_literal_rule_sees_a_drop_as_deviation() -> None:
    losses = np.random.default_rng(1).normal(1, 0.1, 200)
    losses[150] = 0.5
    assert watch(losses, rule="original")[150].name == "loss_deviation"


@pytest.mark.parametrize(
    ("rule", "error", "level", "action"),
    [
        ("original", 0.21, DivergenceLevel.CAUTION, Action.FORCE_CORRECT),
        ("original", 0.19, DivergenceLevel.NORMAL, Action.CONTINUE),
        ("calibrated", 0.21, DivergenceLevel.CAUTION, Action.CONTINUE),
        ("calibrated", 0.19, DivergenceLevel.NORMAL, Action.CONTINUE),
        ("original", math.nan, DivergenceLevel.CAUTION, Action.FORCE_CORRECT),
    ],
)
@pytest.mark.parametrize("loss", [2.0, -2.0])
def test_a_prediction_error_of_20_percent_is_the_limit(
    rule: Any, error: float, level: DivergenceLevel, action: Action, loss: float
) -> None:
    signal = DivergenceMonitor(rule=rule).observe(loss, predicted_loss=loss * (1 + error))
    assert (signal.level, signal.action) == (level, action)


@pytest.mark.parametrize(("rule", "levels"), [("original", [2] * 6), ("calibrated", [2, 2, 2, 0, 0, 0])])
def test_what_lasts_is_the_new_baseline_in_the_calibrated_rule_alone(rule: Any, levels: list[int]) -> None:
    signals = watch([1.0] * 66, [1.0] * 60 + [15.0] * 6, rule=rule)
    assert [int(signal.level) for signal in signals[60:]] == levels
    for signal in signals[60:]:
        assert signal.action is (Action.REDUCE_RATIO if signal.level else Action.CONTINUE)


def test_the_literal_rule_is_the_documents_table_and_no_more() -> None:
    """Nothing but a value that is not finite rolls back, however large, however often (original)."""
    rng = np.random.default_rng(0)
    monitor = DivergenceMonitor(rule="original")
    allowed = {
        "none": {(0, Action.CONTINUE)},
        "loss_deviation": {(2, Action.FORCE_FULL)},
        "loss_oscillation": {(2, Action.FORCE_FULL)},
        "gradient_explosion": {(2, Action.REDUCE_RATIO), (2, Action.FORCE_FULL)},  # with another of both
        "gradient_vanishing": {(2, Action.INCREASE_FULL), (2, Action.FORCE_FULL)},
        "prediction_error": {(1, Action.FORCE_CORRECT)},
    }
    seen: dict[str, set[tuple[int, Action]]] = {}
    for step in range(3000):
        wild = 10.0 ** rng.integers(-4, 5) if step > 100 and rng.random() < 0.5 else 1.0
        loss, norm = wild * rng.lognormal(0, 0.1), rng.choice([wild, 1.0])
        predicted = rng.choice([1.0, 1.3]) * loss
        signal = monitor.observe(loss, norm, predicted_loss=predicted, gradient_sample=norm)
        seen.setdefault(signal.name, set()).add((int(signal.level), signal.action))
    for name, found in seen.items():
        assert {level for level, _ in found} <= {level for level, _ in allowed[name]}
        assert max(action for _, action in found) < Action.ROLLBACK
    assert set(seen) >= {"loss_deviation", "gradient_explosion", "gradient_vanishing"}


# Values that are not numbers, and warm-up


@pytest.mark.parametrize("rule", ["calibrated", "original"])
@pytest.mark.parametrize("warmup", [True, False])
@pytest.mark.parametrize(
    ("loss", "norm"), [(math.nan, 1.0), (math.inf, None), (1.0, math.nan), (1.0, math.inf)]
)
def test_a_value_that_is_not_finite_is_critical_at_once_and_never_learned(
    rule: Any, warmup: bool, loss: float, norm: float | None
) -> None:
    monitor, untouched = DivergenceMonitor(rule=rule), DivergenceMonitor(rule=rule)
    signal = monitor.observe(loss, norm, warmup=warmup)
    assert (signal.level, signal.name, signal.action) == (
        DivergenceLevel.CRITICAL,
        "non_finite",
        Action.ROLLBACK,
    )
    assert monitor.state_dict() == untouched.state_dict()


@pytest.mark.parametrize("rule", ["calibrated", "original"])
def test_warmup_learns_without_a_word(rule: Any) -> None:
    monitor = DivergenceMonitor(rule=rule)
    rng = np.random.default_rng(0)
    for step, loss in enumerate(rng.normal(1, 0.1, 200)):
        burst = 20.0 if step > 100 else 1.0
        assert monitor.observe(loss * burst, burst, warmup=True).level == DivergenceLevel.NORMAL


@given(
    st.lists(st.floats(width=32), max_size=150),
    st.floats(0.5, 6),
    st.sampled_from(["calibrated", "original"]),
)
def test_any_losses_are_survived_and_judged_alike(losses: list[float], threshold: float, rule: Any) -> None:
    signals = [watch(losses, np.abs(losses), rule=rule, threshold=threshold) for _ in range(2)]
    assert repr(signals[0]) == repr(signals[1])
    for loss, signal in zip(losses, signals[0], strict=True):
        assert (signal.name == "non_finite") == (not math.isfinite(loss))


# Levels, actions, state


def test_levels_are_ordered_and_each_has_one_action() -> None:
    assert list(LEVEL_ACTION) == sorted(DivergenceLevel) == [0, 1, 2, 3]
    assert [action.name for action in LEVEL_ACTION.values()] == [
        *["CONTINUE", "CONTINUE"],
        *["FORCE_FULL", "ROLLBACK"],
    ]
    assert all(a <= b for a, b in pairwise(LEVEL_ACTION.values()))


def test_actions_are_ordered_by_precedence() -> None:
    assert [action.name for action in sorted(Action)] == [
        *["CONTINUE", "REDUCE_RATIO", "INCREASE_FULL"],
        *["FORCE_CORRECT", "FORCE_FULL", "ROLLBACK"],
    ]


@given(st.sampled_from(DivergenceLevel), st.sampled_from(DivergenceLevel), st.sampled_from(DivergenceLevel))
def test_the_order_of_levels_is_total(a: DivergenceLevel, b: DivergenceLevel, c: DivergenceLevel) -> None:
    assert (a < b) + (a == b) + (a > b) == 1
    assert not (a <= b <= c) or a <= c


def test_the_stronger_of_two_recoveries_is_done() -> None:
    monitor = DivergenceMonitor(rule="original")
    for loss in np.random.default_rng(0).normal(1, 0.1, 60):
        monitor.observe(loss, 1.0)
    signal = monitor.observe(1.4, 11.0, predicted_loss=9.0)
    assert signal.level == WARNING
    assert signal.action is Action.FORCE_FULL


@given(st.integers(0, 400), st.integers(0, 1000), st.sampled_from(["calibrated", "original"]))
def test_a_monitor_goes_on_from_its_state_as_if_never_stopped(cut: int, seed: int, rule: Any) -> None:
    rng = np.random.default_rng(seed)
    losses = rng.lognormal(0, 0.3, 430) * np.repeat(rng.choice([0.5, 1.0, 3.0], 43), 10)
    norms = rng.lognormal(0, 1.5, 430)
    whole = DivergenceMonitor(rule=rule)

    def observe(monitor: DivergenceMonitor, i: int) -> DivergenceSignal:
        jumped = i % 40 if i > 150 else None
        return monitor.observe(float(losses[i]), float(norms[i]) if i % 7 else None, steps_since_jump=jumped)

    for i in range(cut):
        observe(whole, i)
    part = DivergenceMonitor(rule=rule)
    part.load_state_dict(json.loads(json.dumps(whole.state_dict())))
    assert part.state_dict() == whole.state_dict()
    for i in range(cut, 430):
        assert repr(observe(part, i)) == repr(observe(whole, i))


def test_the_state_is_a_copy() -> None:
    monitor = DivergenceMonitor()
    state = monitor.state_dict()
    before = json.dumps(state)
    for _ in range(60):
        monitor.observe(1.0, 1.0)
    assert json.dumps(state) == before


def test_the_state_of_the_other_rule_is_refused() -> None:
    with pytest.raises(UserError, match=r"divergence_rule='original'.*resume with"):
        DivergenceMonitor().load_state_dict(DivergenceMonitor(rule="original").state_dict())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"rule": "strict"}, "unknown divergence rule 'strict'.*calibrated, original"),
        ({"threshold": 0.0}, r"threshold=0.0 is not allowed \(allowed: > 0\)"),
        ({"threshold": math.nan}, "threshold=nan"),
        ({"gradient_explosion": 1.0}, "gradient_explosion=1.0"),
        ({"gradient_vanishing": 1.0}, "gradient_vanishing=1.0"),
        ({"prediction_error": 0.0}, "prediction_error=0.0"),
        ({"grace_steps": -1}, "grace_steps=-1"),
    ],
)
def test_a_limit_out_of_range_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        DivergenceMonitor(**settings)
