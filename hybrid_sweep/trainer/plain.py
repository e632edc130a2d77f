"""PlainStep: one real training step, the same code for the hybrid and for what it is compared with."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from functools import partial
from math import hypot
from statistics import fmean
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from hybrid_sweep.errors import UserError

if TYPE_CHECKING:
    from hybrid_sweep.trainer.predictors.groups import LayerGroups

LossFunction = Callable[[Any, Any], Tensor]
Batches = Callable[[int], Any] | Sequence[Any] | Iterable[Any]


class PlainStep:
    """Forward, loss, backward, clipping, optimizer and schedule of one step.

    The whole step runs inside the optimizer's closure, so that optimizers which evaluate it several times
    (LBFGS) work like the others.

    Attributes:
        backward_calls: backward passes so far.
        scheduler: stepped once a logical step; None where there is none.
        hooked: whether more than its settings say happens in a step of the optimizer.

    Raises:
        UserError: for a scheduler that needs a metric, a model without trainable parameters, an optimizer
            that has others than the model's, or a norm that is not positive.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        loss_fn: LossFunction,
        lr_scheduler: LRScheduler | None = None,
        max_grad_norm: float | None = None,
    ) -> None:
        if isinstance(lr_scheduler, ReduceLROnPlateau):
            raise UserError("ReduceLROnPlateau needs a metric at every step; use a schedule of the step")
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        if not self.parameters:
            raise UserError(
                "the model has no trainable parameter: set requires_grad on what is to be trained"
            )
        if foreign := len(_of_optimizer(optimizer).difference(map(id, model.parameters()))):
            raise UserError(
                f"the optimizer has parameters that the model does not have ({foreign}), which no rollback "
                "and no saved run would know: build one model of all that is trained"
            )
        if max_grad_norm is not None and not max_grad_norm > 0:
            raise UserError(f"max_grad_norm={max_grad_norm} is not allowed: a norm above 0, or None")
        self.model = model
        self.optimizer = optimizer
        self.loss_fn = loss_fn
        self.backward_calls = 0
        self.scheduler = lr_scheduler
        self.hooked = False
        self._max_grad_norm = max_grad_norm
        self._clipped: Tensor | None = None

    def __call__(self, batch: Any) -> Tensor:
        """Train on `batch`; return its loss, a scalar on the device."""
        return self._step(partial(self._backward, batch))

    def take(self, loss: Tensor) -> Tensor:
        """Take the step whose gradient lies in the parameters already, `loss` being that of its batch."""
        return self._step(partial(self.count, loss))

    def count(self, loss: Tensor) -> Tensor:
        """Count a backward pass whose gradient lies in the parameters, and clip that; return `loss`."""
        self.backward_calls += 1
        limit = self._max_grad_norm
        self._clipped = None if limit is None else nn.utils.clip_grad_norm_(self.parameters, limit)
        return loss

    def _step(self, closure: Any) -> Tensor:
        loss: Any = self.optimizer.step(closure)
        if self.scheduler is not None:
            self.skip(1)
        return loss.detach() if isinstance(loss, Tensor) else loss

    def _backward(self, batch: Any) -> Tensor:
        """Compute the gradient on `batch`; return the loss."""
        self.optimizer.zero_grad()
        loss = self.loss_fn(self.model, batch)
        if not (isinstance(loss, Tensor) and loss.requires_grad and loss.numel() == 1):
            raise UserError(
                f"the loss is {_described(loss)}: return a tensor of one number, such as the mean over the "
                "batch, that was computed with the trainable parameters"
            )
        torch.autograd.backward(loss)
        return self.count(loss)

    def gradient_norm(self) -> float:
        """Return the total norm of the newest gradient, before clipping; sparse gradients are left out."""
        if self._clipped is not None:
            return float(self._clipped)
        dense = [p.grad for p in self.parameters if p.grad is not None and not p.grad.is_sparse]
        return hypot(*torch.stack(torch._foreach_norm(dense)).tolist()) if dense else 0.0

    def state_dict(self) -> dict[int, Tensor]:
        """Return copies of the gradients, by position, that add up since the optimizer does not know them."""
        return {i: p.grad.clone() for i, p in self._unknown().items() if p.grad is not None}

    def load_state_dict(self, state: dict[int, Tensor]) -> None:
        """Put back what `state_dict` returned, which stays as it is."""
        for i, p in self._unknown().items():
            p.grad = state[i].to(p.device, copy=True) if i in state else None

    def _unknown(self) -> dict[int, nn.Parameter]:
        known = _of_optimizer(self.optimizer)
        return {i: p for i, p in enumerate(self.parameters) if id(p) not in known}

    @property
    def learning_rate(self) -> float:
        """Learning rate of the next step, the mean over the optimizer's parameter groups."""
        rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        return rates[0] if len(rates) == 1 else fmean(rates)

    def skip(self, steps: int) -> float:
        """Advance the schedule by `steps` logical steps; return their mean learning rate."""
        if self.scheduler is None:
            return self.learning_rate
        rates = []
        for _ in range(steps):
            rates.append(self.learning_rate)
            self.scheduler.step()
        return fmean(rates) if rates else self.learning_rate


def _of_optimizer(optimizer: Optimizer) -> set[int]:
    return {id(p) for group in optimizer.param_groups for p in group["params"]}


def _described(loss: Any) -> str:
    if not isinstance(loss, Tensor):
        return f"a {type(loss).__name__}"
    return f"a tensor of shape {tuple(loss.shape)}" + " without a gradient" * (not loss.requires_grad)


class Real(NamedTuple):
    """A real step that is due: who takes it, on what, and the vector of its weights where there is one."""

    plain: PlainStep
    batch: Any
    groups: LayerGroups | None = None


T = TypeVar("T")
Steps = Generator[Real, Any, T]
"""Training that yields each real step, and is sent its loss by whoever has taken it."""


def alone(steps: Steps[T]) -> T:
    """Take every real step of `steps` by itself; return what it returns."""
    loss = None
    while True:
        try:
            real = steps.send(loss)
        except StopIteration as end:
            result: T = end.value
            return result
        loss = real.plain(real.batch)


def as_loader(batches: Batches) -> Callable[[int], Any]:
    """Return `load(step)`, with step from 1, over a callable, a sequence or an iterable of batches."""
    if callable(batches):
        return batches
    if isinstance(batches, Sequence) and batches:
        return lambda step: batches[(step - 1) % len(batches)]
    endless = _restarted(batches)
    return lambda _: next(endless)


def _restarted(batches: Iterable[Any]) -> Iterator[Any]:
    while True:
        drawn = False
        for batch in batches:
            drawn = True
            yield batch
        if not drawn:
            raise UserError("the batches have run out: pass a callable, a sequence, or a re-iterable loader")
