"""ForwardPass: the loss of a batch without a backward pass, also where the loss needs gradients itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from hybrid_sweep.trainer.random_state import random_state, set_random_state


class ForwardPass:
    """Computes the loss of batches without gradients of the weights.

    A loss that differentiates by itself (the residual of a differential equation, a gradient penalty) raises
    where gradients are off. That is found out at the first pass; from there on its passes build a graph,
    which is dropped, and the gradients in the parameters stay as they are.

    Args:
        model: what is trained.
        loss_fn: `loss_fn(model, batch)`.
    """

    def __init__(self, model: nn.Module, loss_fn: Callable[[Any, Any], Any]) -> None:
        self._model, self._loss_fn = model, loss_fn
        self._differentiates: bool | None = None

    def __call__(self, batch: Any) -> Any:
        """Return the loss of `batch`, in the model's own mode."""
        if self._differentiates is None:
            return self._first(batch)
        return self._with_graph(batch) if self._differentiates else self._without(batch)

    def _first(self, batch: Any) -> Any:
        random, buffers = random_state(), [(b, b.detach().clone()) for b in self._model.buffers()]
        try:
            loss = self._without(batch)
        except Exception:  # of the loss, which decides below whether it was for the lack of gradients
            set_random_state(random)
            for buffer, before in buffers:
                buffer.detach().copy_(before)
            loss = self._with_graph(batch)
            self._differentiates = True
            return loss
        self._differentiates = False
        return loss

    def _without(self, batch: Any) -> Any:
        with torch.no_grad():
            return self._loss_fn(self._model, batch)

    def _with_graph(self, batch: Any) -> Any:
        with torch.enable_grad(), _own_gradients(self._model):
            loss = self._loss_fn(self._model, batch)
        return loss.detach() if isinstance(loss, Tensor) else loss


@contextmanager
def _own_gradients(model: nn.Module) -> Iterator[None]:
    """Take the parameters' gradients away within, for a loss may call backward() on its way."""
    kept = [(p, p.grad) for p in model.parameters()]
    for p, _ in kept:
        p.grad = None
    try:
        yield
    finally:
        for p, gradient in kept:
            p.grad = gradient
