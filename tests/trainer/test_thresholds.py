"""Settings of the monitor that a sweep may vary decide something on a shipped workload."""

from hybrid_sweep.trainer import PRESETS, HybridTrainer
from trainables.mnist_mlp import MnistMlp

BASE = PRESETS["balanced"].replace(warmup_steps=50, correct_steps=2)


def phases(seed, lr=0.1, **changes):
    workload = MnistMlp(lr=lr, batch_size=32)
    model = workload.build_model(seed)
    trainer = HybridTrainer(
        model, workload.build_optimizer(model), BASE.replace(**changes), loss_fn=workload.loss
    )
    trainer.run(lambda step: workload.batch(seed, step), 1000)
    return trainer.trace()


def differ(seeds, one, other):
    return sum(phases(seed, **one) != phases(seed, **other) for seed in range(seeds))


def test_a_threshold_of_2_ends_jumps_that_one_of_5_does_not():
    assert differ(5, {"divergence_threshold": 2.0}, {"divergence_threshold": 5.0}) >= 3


def test_so_does_the_guards_tolerance():
    settings = {"divergence_threshold": 1.0, "lr": 0.01}
    assert differ(2, settings | {"guard_tolerance": 1.05}, settings | {"guard_tolerance": 3.0}) == 2


def test_the_rule_decides_too():
    assert differ(1, {"divergence_rule": "calibrated"}, {"divergence_rule": "original"}) == 1
