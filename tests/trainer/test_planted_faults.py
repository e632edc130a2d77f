"""Faults planted in short runs of the trainer are found within 20 observed real steps; noise is no fault.

`benchmarks/planted_faults.py` does the same on the bundled digits, for more runs and settings.
"""

import math

import pytest
from support.problem import Problem

from hybrid_sweep.trainer import HybridConfig, HybridTrainer, TrainingDiverged

SHUT = HybridConfig(warmup_steps=50, confidence_threshold=0.999)
QUICK = HybridConfig(
    warmup_steps=50, full_steps=20, max_predict_steps=50, correction_interval=15, confidence_threshold=0.01
)


def scaled_gradient(factor):
    return lambda loss, step: loss.detach() + factor * (loss - loss.detach())


FAULTS = {
    "explosion of the gradient": ("gradient_explosion", scaled_gradient(100.0)),
    "explosion of the loss": ("gradient_explosion", lambda loss, step: 100 * loss),
    "vanishing of the gradient": ("gradient_vanishing", scaled_gradient(0.001)),
    "vanishing of the loss": ("gradient_vanishing", lambda loss, step: 0.001 * loss),
    "rise": ("loss_deviation", lambda loss, step: loss + 2 * loss.detach()),
    "swing": ("loss_oscillation", lambda loss, step: loss + (-1) ** step * 1.5 * loss.detach()),
    "NaN": ("non_finite", lambda loss, step: loss * math.nan),
    "prediction": ("prediction_error", lambda loss, step: 2 * loss),
}


def observed(seed, config, fault=None, onset=0, clip=None, steps=400, lasts=1000):
    """Train with a fault; return each measured step, whether it was real, and its signal."""
    problem, now, seen = Problem(seed=seed, lr=0.01), [0], []

    def loss_fn(model, batch):
        loss = problem.loss(model, batch)
        return fault(loss, now[0]) if fault and onset <= now[0] < onset + lasts else loss

    trainer = HybridTrainer(problem.model, problem.optimizer, config, loss_fn=loss_fn, max_grad_norm=clip)
    trainer.controller.total_steps = steps
    for step in range(1, steps + 1):
        now[0] = step
        try:
            result = trainer.step(problem.batch(step))
        except TrainingDiverged:
            break
        if result.signal is not None:
            seen.append((step, result.phase.is_real, result.signal))
        if sum(real for step, real, _ in seen if step >= onset) > 20 and fault:
            break
    return seen


def is_found(seen, name, onset):
    real = 0
    for step, is_real, signal in seen:
        real += is_real and step >= onset
        if step >= onset and real <= 20 and signal.name == name:
            return True
    return False


@pytest.mark.parametrize("clip", [None, 0.5])
@pytest.mark.parametrize("name", [name for name in FAULTS if name != "prediction"])
def test_a_fault_of_real_steps_is_found(name, clip):
    signal, fault = FAULTS[name]
    found = [
        is_found(observed(seed, SHUT, fault, onset, clip), signal, onset)
        for seed in range(2)
        for onset in (243, 300, 360)  # the loss of this problem falls fast until then
    ]
    assert all(found)


@pytest.mark.parametrize("name", [name for name in FAULTS if name not in ("rise", "swing")])
def test_a_fault_is_found_between_jumps_too(name):
    signal, fault = FAULTS[name]
    found = [is_found(observed(seed, QUICK, fault, 130), signal, 130) for seed in range(3)]
    assert all(found)


@pytest.mark.parametrize("clip", [None, 0.5])
@pytest.mark.parametrize("begin", [121, 124, 129])
@pytest.mark.parametrize("factor", [100.0, 0.001])
def test_a_fault_of_one_step_is_found_wherever_it_falls(begin, factor, clip):
    seen = observed(0, SHUT, scaled_gradient(factor), begin, clip, lasts=1)
    alarms = [(step, signal.name) for step, _, signal in seen if signal.level]
    assert alarms[:1] == [(begin, "gradient_explosion" if factor > 1 else "gradient_vanishing")]


@pytest.mark.parametrize("config", [SHUT, QUICK], ids=["shut", "quick"])
@pytest.mark.parametrize("clip", [None, 0.5])
def test_noise_is_no_fault(config, clip):
    signals = [signal for seed in range(5) for _, _, signal in observed(seed, config, clip=clip)]
    assert len(signals) > 500
    assert [signal for signal in signals if signal.level >= 2] == []


def test_a_gradient_that_was_clipped_rolls_nothing_back():
    seen = observed(0, SHUT, scaled_gradient(1e6), 120, clip=0.5)
    assert max(signal.level for _, _, signal in seen) == 2
    unclipped = observed(0, SHUT, scaled_gradient(1e6), 120)
    assert max(signal.level for _, _, signal in unclipped) == 3
