"""Every setting of the trainer changes weights, phases or what is told, on a shipped workload."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
import torch

from hybrid_sweep.errors import UserError
from hybrid_sweep.trainer import HybridConfig, HybridTrainer, TrainingDiverged
from trainables.regression import Regression

STEPS = 240
WORKLOAD = Regression(points=64, width=16, steps=STEPS)
BASE = HybridConfig(warmup_steps=30, full_steps=10, max_predict_steps=20, confidence_threshold=0.3)


class Case(NamedTuple):
    """Two values of a field that make a difference, with what else they need for that.

    Attributes:
        one: value of the field.
        other: another one.
        beside: other settings of both runs.
        nan_at: logical step whose loss is NaN.
        risen_from: logical step from which every value that is learned is three times as large.
    """

    one: Any
    other: Any
    beside: Mapping[str, Any] = MappingProxyType({})
    nan_at: int = 0
    risen_from: int = STEPS + 1


PROBED = {"correction_interval": 5}
CASES = {
    "warmup_steps": Case(30, 40),
    "full_steps": Case(10, 15),
    "max_predict_steps": Case(20, 30),
    "correction_interval": Case(0, 5),
    "correction_schedule": Case("fixed", "adaptive", PROBED),
    "confidence_threshold": Case(0.3, 0.98),
    "divergence_threshold": Case(2.0, 50.0, risen_from=150),
    "correct_steps": Case(5, 0),
    "stop_fraction": Case(0.05, 0.4),
    "tail": Case("stop", "average"),
    "cycle_mode": Case("original", "chained"),
    "horizon_rule": Case("original", "fixed"),
    "predictor": Case("ema", "outer_momentum"),
    "velocity_decay": Case(0.97, 0.9),
    "gates": Case("learned", "off"),
    "minimum_cosine": Case(-0.7, 0.999),
    "guard_tolerance": Case(2.0, 1.0001, {**PROBED, "divergence_threshold": 0.5}),
    "divergence_rule": Case("calibrated", "original"),
    "force_full_steps": Case(50, 15, nan_at=60),
    "max_rollbacks": Case(3, 0, nan_at=60),
    "checkpoint_interval": Case(10, 1000, {"confidence_threshold": 0.999}, nan_at=145),
    "confidence_rule": Case("three_term", "original"),
    "calibration": Case("none", "binned"),
    "predictor_hidden_size": Case(32, 8),
    "predictor_members": Case(1, 3),
    "bptt_steps": Case(1, 3),
    "predictor_seed": Case(0, 1),
}
REFUSED = {"gradient_checkpointing": True}
"""Reserved: a value that is not available is refused."""


def outcome(config: HybridConfig, nan_at: int = 0, risen_from: int = STEPS + 1) -> tuple[str, str, str]:
    """Train; return weights, phases and what is told, as text, in which a NaN equals another."""
    model = WORKLOAD.build_model(0)
    optimizer = WORKLOAD.build_optimizer(model)
    trainer = HybridTrainer(
        model,
        optimizer,
        config,
        loss_fn=WORKLOAD.loss,
        lr_scheduler=WORKLOAD.build_scheduler(optimizer),
    )

    def batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
        inputs, values = WORKLOAD.batch(0, step)
        return inputs, values * (float("nan") if step == nan_at else 3 if step >= risen_from else 1)

    try:
        trainer.run(batch, STEPS)
        ended = "whole"
    except TrainingDiverged as error:
        ended = str(error)
    weights = torch.cat([p.detach().ravel() for p in model.parameters()]).tolist()
    return repr(weights), repr(trainer.trace()), ended + repr(trainer.training_statistics())


def test_every_field_has_a_case() -> None:
    assert {*CASES, *REFUSED} == set(HybridConfig.model_fields)


def test_the_same_settings_give_the_same_run() -> None:
    assert outcome(BASE, nan_at=60) == outcome(BASE, nan_at=60)


@pytest.mark.parametrize("name", CASES)
def test_a_field_makes_a_difference(name: str) -> None:
    one, other, beside, nan_at, risen_from = CASES[name]
    runs = [outcome(BASE.replace(**{**beside, name: value}), nan_at, risen_from) for value in (one, other)]
    assert runs[0] != runs[1]


@pytest.mark.parametrize("name", REFUSED)
def test_a_reserved_field_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="is not available yet"):
        HybridConfig(**{name: REFUSED[name]})
