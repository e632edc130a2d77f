"""What an arm changes of the workload's recipe: optimizer, learning rate, and BatchNorm's statistics."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import cos, pi
from typing import Any

from schedulefree import AdamWScheduleFree, SGDScheduleFree
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from hybrid_sweep.control import ControlConfig
from hybrid_sweep.errors import UserError
from hybrid_sweep.trainer.optimizers import OptimizerLike

WARM_UP_SHARE = 0.05
"""Of the steps of `tuned` and `schedule_free`, in which the learning rate rises linearly."""


class NotApplicable(UserError):
    """The arm changes what the workload's recipe does not have."""


def add_momentum(optimizer: OptimizerLike, momentum: float) -> None:
    """Give plain SGD a momentum, in place.

    Raises:
        NotApplicable: it is not SGD, or has one.
    """
    if not isinstance(optimizer, SGD) or any(group["momentum"] for group in optimizer.param_groups):
        raise NotApplicable("arm 'momentum' needs a recipe of SGD without momentum: leave it out here")
    for group in optimizer.param_groups:
        group["momentum"] = momentum


def tuned(arm: ControlConfig, recipe: OptimizerLike, steps: int) -> tuple[Optimizer, LambdaLR]:
    """Return SGD-Nesterov or AdamW with a short linear warm-up, and decay to 0 at the end of the run."""
    lr = _rate(arm, recipe)
    optimizer: Optimizer
    if arm.optimizer == "adamw":
        betas = (arm.momentum, 0.999)
        optimizer = AdamW(_trained(recipe), lr=lr, betas=betas, weight_decay=arm.weight_decay)
    else:
        optimizer = SGD(
            _trained(recipe), lr=lr, momentum=arm.momentum, weight_decay=arm.weight_decay, nesterov=True
        )
    warm_up = WARM_UP_SHARE * steps

    def share(done: int) -> float:
        left = 1 - done / steps
        decayed = left if arm.decay == "linear" else (1 + cos(pi * (1 - left))) / 2
        return min((done + 1) / (warm_up + 1), decayed)

    return optimizer, LambdaLR(optimizer, share)


def schedule_free(
    arm: ControlConfig, recipe: OptimizerLike, steps: int
) -> SGDScheduleFree | AdamWScheduleFree:
    """Return Schedule-Free SGD or AdamW with a short linear warm-up."""
    shared = {"weight_decay": arm.weight_decay, "warmup_steps": int(WARM_UP_SHARE * steps)}
    if arm.optimizer == "adamw":
        return AdamWScheduleFree(
            _trained(recipe), lr=_rate(arm, recipe), betas=(arm.momentum, 0.999), **shared
        )
    return SGDScheduleFree(_trained(recipe), lr=_rate(arm, recipe), momentum=arm.momentum, **shared)


def estimate_norms(model: nn.Module, batches: Iterable[Any], look: Callable[[Any], object]) -> None:
    """Average BatchNorm's statistics over `batches`; a model without such buffers looks at none.

    Args:
        model: it.
        batches: of training.
        look: runs a forward pass of the model on a batch.
    """
    norms: list[Any] = [
        module for module in model.modules() if getattr(module, "running_mean", None) is not None
    ]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's word for a plain mean
    for batch in batches:
        look(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def _trained(recipe: OptimizerLike) -> list[Tensor]:
    return [p for group in recipe.param_groups for p in group["params"]]


def _rate(arm: ControlConfig, recipe: OptimizerLike) -> float:
    return arm.lr or (arm.multiplier or 1.0) * float(recipe.param_groups[0]["lr"])
