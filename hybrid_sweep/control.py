"""Arm: one control of the comparison, as values; `measure.arms` runs it."""

from __future__ import annotations

import random
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from hybrid_sweep.errors import Settings

ArmName = Literal[
    "reference",  # A0
    "truncated",  # A1
    "lr",  # A2
    "lr_matched",  # A3
    "momentum",  # A4
    "tuned",  # A5
    "average",  # A6
    "schedule_free",  # A7
    "frozen",  # A8, the ablation that moves nothing; the others are hybrids with another predictor
]
ABLATION = "ablation"
"""What a hybrid run with another predictor is called beside the arms (A8)."""
REPLAYED = ("lr_matched", "frozen")
"""Arms that take their real steps where a hybrid run took them."""
LEARNING_RATES = {"sgd": (1e-3, 1.0), "adamw": (1e-4, 3e-2)}
GOLDEN = 0.6180339887498949
SCHEDULE_FREE_GAIN = 10.0
"""Schedule-Free SGD wants 10 to 50 times the rate of SGD with momentum (its own README)."""


class ControlConfig(Settings):
    """What a control trains with where that is not the workload's recipe.

    Attributes:
        name: of the arm.
        multiplier: m. `lr` and `schedule_free` (where `lr` is None) scale the recipe's learning rate by it,
            `lr_matched` does where jumps are on, `momentum` takes 1 − 1/m. None: `lr_matched` takes the
            hybrid's own, logical steps / real steps of that part; the others 1.
        schedule_steps: logical steps of the recipe's schedule that `lr` and `momentum` pass through in their
            shorter run; None steps it once a step.
        optimizer: of `tuned` and `schedule_free`.
        lr: their learning rate, its peak.
        momentum: of SGD, or AdamW's beta1.
        weight_decay: theirs.
        decay: to 0 at the end of the run, of `tuned`.
        tail: share of the steps, the last ones, whose weights are averaged; None is 0.25 of `average` and
            none of the others. With `lr_matched` and `frozen` it is that of their hybrid.
        real_steps: how many it takes where it is not as many as its hybrid: a control at equal wall clock.
    """

    name: ArmName
    multiplier: Annotated[float, Field(gt=0)] | None = None
    schedule_steps: Annotated[int, Field(ge=1)] | None = None
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: Annotated[float, Field(gt=0)] | None = None
    momentum: float = Field(default=0.9, gt=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0)
    decay: Literal["linear", "cosine"] = "linear"
    tail: Annotated[float, Field(ge=0, le=1)] | None = None
    real_steps: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _momentum_is_not_below_zero(self) -> Self:
        if self.name == "momentum" and self.multiplier is not None and self.multiplier < 1:
            raise ValueError(f"multiplier={self.multiplier:g} of 'momentum' is not allowed: at least 1")
        return self


def tuning_trials(name: Literal["tuned", "schedule_free"], count: int, seed: int) -> list[ControlConfig]:
    """Draw `count` settings of a tuned arm: SGD with Nesterov momentum and AdamW by turns.

    Learning rate, 1 − momentum (0.02 to 0.3) and weight decay (1e-5 to 0.1) are log-uniform; the learning
    rates of each optimizer are spread evenly (an additive recurrence with the golden ratio), since few
    trials are to cover their range. More draws of a seed begin with those of fewer.
    """
    generator = random.Random(f"{name} {seed}")
    begin = generator.random()
    return [
        _draw(name, "adamw" if i % 2 else "sgd", (begin + i // 2 * GOLDEN) % 1, generator)
        for i in range(count)
    ]


def _draw(
    name: Literal["tuned", "schedule_free"],
    optimizer: Literal["sgd", "adamw"],
    share: float,
    generator: random.Random,
) -> ControlConfig:
    """Return the arm whose learning rate lies at `share` of its range, the rest drawn."""
    low, high = LEARNING_RATES[optimizer]
    gain = SCHEDULE_FREE_GAIN if (name, optimizer) == ("schedule_free", "sgd") else 1.0
    return ControlConfig(
        name=name,
        optimizer=optimizer,
        lr=gain * low * (high / low) ** share,
        momentum=1 - 0.02 * 15 ** generator.random(),
        weight_decay=1e-5 * 1e4 ** generator.random(),
        decay=generator.choice(("linear", "cosine")),
    )
