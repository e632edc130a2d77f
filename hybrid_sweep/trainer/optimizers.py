"""What a run needs of an optimizer: several as one, and a step whatever it does with its closure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from inspect import signature
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from hybrid_sweep.errors import UserError
from hybrid_sweep.trainer.gradients import values_of

NEEDED = ("param_groups", "zero_grad", "step", "state_dict", "load_state_dict")


class OptimizerLike(Protocol):
    """What is used of an optimizer: torch's have it, and a class of one's own may."""

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Groups of parameters with their settings, `params` and `lr` among them."""
        ...

    @property
    def zero_grad(self) -> Callable[..., Any]:
        """Forgets the gradients."""
        ...

    @property
    def step(self) -> Callable[..., Any]:
        """Moves the parameters, by a closure or by the gradients that they have."""
        ...

    @property
    def state_dict(self) -> Callable[..., Any]:
        """Returns the state, for a rollback and for a run that is saved."""
        ...

    @property
    def load_state_dict(self) -> Callable[..., Any]:
        """Puts that back."""
        ...


class Several:
    """Several optimizers as one: after one backward pass, each moves the parameters that it holds.

    So they share one loss. Those of a GAN do where both players' losses are added up, each computed with the
    other player's weights detached; with a loss of its own for each step they are not supported.

    Raises:
        UserError: one of them evaluates the loss itself, as LBFGS does.
    """

    def __init__(self, parts: Sequence[OptimizerLike]) -> None:
        self.parts = list(parts)
        for part in parts:
            if not steps_with(part, 0):
                raise UserError(
                    f"{type(part).__name__} evaluates the loss in its step, which it cannot beside other "
                    "optimizers: use it alone"
                )

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of all of them."""
        return [group for part in self.parts for group in part.param_groups]

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for part in self.parts:
            part.zero_grad()

    def step(self) -> None:
        """Let each of them take a step by the gradients that are there."""
        for part in self.parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """Return the state of each."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` returned."""
        for part, own in zip(self.parts, state["parts"], strict=True):
            part.load_state_dict(own)


def as_optimizer(given: Any) -> OptimizerLike:
    """Return an optimizer, or a list or tuple of several as one.

    Raises:
        UserError: something is missing that a run needs.
    """
    if isinstance(given, list | tuple) and given:
        return Several([as_optimizer(part) for part in given])
    missing = [name for name in NEEDED if not hasattr(given, name)]
    if missing:
        raise UserError(
            f"the optimizer is a {type(given).__name__} without {', '.join(missing)}: return one that has "
            "param_groups with params and lr, zero_grad(), step(), state_dict() and load_state_dict(), as "
            "torch's have, or a list of such"
        )
    for group in given.param_groups:
        try:
            float(group["lr"])
        except (KeyError, TypeError, ValueError):
            raise UserError(
                f"the optimizer {type(given).__name__} has lr={group.get('lr')!r} in its param_groups: a "
                "number is needed there, for jumps are scaled by its change and controls raise it"
            ) from None
    optimizer: OptimizerLike = given
    return optimizer


def steps_with(part: Any, arguments: int) -> bool:
    """Return whether the `step` of an optimizer or schedule can be called with so many positional arguments.

    Its class is asked, since torch's schedules put a function with another signature in front of the
    optimizer's own.
    """
    step = getattr(type(part), "step", None)
    try:
        if step is None:
            signature(part.step).bind(*range(arguments))
        else:
            signature(step).bind(part, *range(arguments))
    except TypeError:
        return False
    except ValueError:  # compiled code tells nothing
        return True
    return True


class StepTaker:
    """Takes the steps of one optimizer, whatever it does with the closure that computes loss and gradient.

    Most call it first thing, LBFGS several times. Others take none, or ignore it: their gradients must be
    there before. Others again (SAM) look at the gradients, move, and then call it. Which one it is shows at
    the first step, when the gradients are there before: a closure that is called while weights and gradients
    are as they were returns what was computed.

    Args:
        optimizer: it.
        parameters: what it trains.
    """

    def __init__(self, optimizer: OptimizerLike, parameters: Sequence[nn.Parameter]) -> None:
        self._optimizer, self._parameters = optimizer, parameters
        self._takes_closure = steps_with(optimizer, 1)
        self._gradient_first: bool | None = None if self._takes_closure else True

    def __call__(self, evaluate: Callable[[], Tensor]) -> Tensor:
        """Take a step; return the first loss of it.

        Args:
            evaluate: puts gradients into the parameters and returns the loss of the weights that are there.

        Raises:
            UserError: it calls the closure in some steps and not in others.
        """
        losses: list[Tensor] = []
        known = self._gradient_first

        def closure() -> Tensor:
            if known is None and len(losses) == 1 and self._gradient_first is None:
                self._gradient_first = self._mark() != mark
                if not self._gradient_first:
                    return losses[0]
            with torch.enable_grad():
                losses.append(evaluate())
            return losses[-1]

        if known is not False:
            losses.append(evaluate())
        mark = self._mark() if known is None else ""
        if self._takes_closure:
            self._optimizer.step(closure)
        else:
            self._optimizer.step()
        if not losses:
            raise UserError(
                f"{type(self._optimizer).__name__}.step(closure) has called its closure in earlier steps and "
                "not in this one, so that it moved by an old gradient: call it in each step, or in none"
            )
        if self._gradient_first is None:
            self._gradient_first = True
        return losses[0]

    def _mark(self) -> str:
        """Return what tells whether weights or gradients have changed."""
        gradients = [None if p.grad is None else values_of(p.grad) for p in self._parameters]
        tensors = [*(p.detach() for p in self._parameters), *gradients]
        return str([None if t is None else float(torch.linalg.vector_norm(t)) for t in tensors])


def parts_of(optimizer: Any) -> list[Any]:
    """Return the optimizer, or those of several."""
    return optimizer.parts if isinstance(optimizer, Several) else [optimizer]


def with_modes(optimizer: Any) -> list[Any]:
    """Return the optimizer, or those of several, with `train()` and `eval()`, as Schedule-Free ones have."""
    return [
        part
        for part in parts_of(optimizer)
        if all(callable(getattr(part, name, None)) for name in ("train", "eval"))
    ]


@contextmanager
def evaluated_weights(optimizer: Any, model: nn.Module) -> Iterator[None]:
    """Put the weights in place that an optimizer with modes hands out; those of training come back."""
    parts = with_modes(optimizer)
    kept = [(p, p.detach().clone()) for p in model.parameters()] if parts else []
    for part in parts:
        part.eval()
    try:
        yield
    finally:
        for part in parts:
            part.train()
        for p, before in kept:  # to the last bit, which train() after eval() is not
            p.detach().copy_(before)


@contextmanager
def scaled_rates(optimizer: OptimizerLike, factor: float) -> Iterator[None]:
    """Multiply the learning rates within; they are put back as they were, for a schedule looks at them."""
    groups = optimizer.param_groups
    rates = [group["lr"] for group in groups]
    for group in groups:
        group["lr"] = group["lr"] * factor
    try:
        yield
    finally:
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate
