"""OptimizerReplay: the optimizer's own momentum, carried on without gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW

from hybrid_sweep.errors import UserError
from hybrid_sweep.trainer.config import HybridConfig
from hybrid_sweep.trainer.layer_groups import LayerGroups, reals
from hybrid_sweep.trainer.optimizers import OptimizerLike
from hybrid_sweep.trainer.predictors.base import Predictor
from hybrid_sweep.trainer.train_step import TrainStep


class OptimizerReplay(Predictor):
    """What the optimizer would do if every coming gradient were zero, in closed form.

    SGD with momentum: m ← μm, θ ← θ − ηm (with Nesterov's look-ahead once more μ). Adam and AdamW: m ← β₁m
    with v, the bias corrections and the learning rate as they are, and no weight decay. A step is worth
    a fraction ρ = μ or β₁ of the one before, so H steps are worth ρ(1−ρ^H)/(1−ρ) of the last one: nine at
    ρ = 0.9, however long the horizon (docs/design-notes.md). Replaying m without its decay instead makes
    losses explode (Leap+Verify, 2602.19580).

    Stable as far as ρ/(1−ρ) steps of a stale direction are; no H makes it worse. Memory: none.
    Cost: none in a real step, three passes a jump.

    Args:
        groups: the weights, shared with the trainer.
        decay: of other predictors; unused.
        full_steps: K, real steps of a Full phase.
        optimizer: SGD with momentum, Adam or AdamW.
        parameters: the optimizer's own tensors, in the order of `groups`.

    Raises:
        UserError: another optimizer, or one without momentum.
    """

    def __init__(
        self,
        groups: LayerGroups,
        decay: float,
        full_steps: int,
        optimizer: OptimizerLike,
        parameters: Sequence[Tensor],
    ) -> None:
        super().__init__(groups, decay, full_steps)
        if type(optimizer) not in (SGD, Adam, AdamW):
            raise UserError(
                f"predictor='optimizer_replay' cannot carry {type(optimizer).__name__} on: "
                "take SGD with momentum, Adam or AdamW, or another predictor"
            )
        if not any(_fraction(group) for group in optimizer.param_groups):
            raise UserError(
                f"predictor='optimizer_replay' needs momentum, and this {type(optimizer).__name__} has none: "
                "set it, or take another predictor"
            )
        self._optimizer: Any = optimizer
        self._group_of = {id(p): i for i, group in enumerate(optimizer.param_groups) for p in group["params"]}
        self._parameters = list(parameters)
        self._rates = self._learning_rates()

    @classmethod
    def from_config(cls, groups: LayerGroups, config: HybridConfig, plain: TrainStep) -> Self:
        """Build the predictor of a run.

        Raises:
            UserError: its optimizer cannot be carried on.
        """
        return cls(groups, config.velocity_decay, config.full_steps, plain.optimizer, plain.parameters)

    def displacement(self, begin: float, end: float) -> Tensor:
        """Return the sum of the decaying steps from `begin` to `end`."""
        return self.groups.flat([self._carried(p, begin, end) for p in self._parameters])

    def _carried(self, parameter: Tensor, begin: float, end: float) -> Tensor:
        index, state = self._group_of.get(id(parameter)), self._optimizer.state.get(parameter)
        if index is None or not state:
            return torch.zeros_like(parameter)
        group = self._optimizer.param_groups[index]
        ratio = _fraction(group)
        sizes = -self._rates[index] * ratio ** (begin + 1) * (1 - ratio ** (end - begin)) / (1 - ratio)
        if "momentum" in group:
            buffer: Tensor | None = state["momentum_buffer"]
            sizes *= ratio if group["nesterov"] else 1.0
            return torch.zeros_like(parameter) if buffer is None else buffer * sizes
        count = float(state["step"])
        square = reals(state["max_exp_avg_sq" if group["amsgrad"] else "exp_avg_sq"])
        denominator = (square / (1 - float(group["betas"][1]) ** count)).sqrt_().add_(group["eps"])
        step: Tensor = reals(state["exp_avg"]) / denominator  # to Adam, a complex number is two weights
        return step.mul_(sizes / (1 - ratio**count))

    def _close(self, steps: int) -> None:
        self._rates = self._learning_rates()

    def _learning_rates(self) -> list[float]:
        return [float(group["lr"]) for group in self._optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Return what is not the optimizer's."""
        return {**super().state_dict(), "rates": list(self._rates)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state)
        self._rates = list(state["rates"])


def _fraction(group: dict[str, Any]) -> float:
    """Return what a step without a gradient is worth of the one before."""
    return float(group["momentum"] if "momentum" in group else group["betas"][0])
