"""What a run needs of a learning-rate schedule: several as one, and a state that is put back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau

from hybrid_sweep.errors import UserError
from hybrid_sweep.trainer.optimizers import steps_with
from hybrid_sweep.trainer.snapshot import Stateful


class ScheduleLike(Protocol):
    """What is used of a schedule: torch's have it, and a class of one's own may."""

    @property
    def step(self) -> Callable[..., Any]:
        """Sets the learning rate of the next logical step, without arguments."""
        ...


class SeveralSchedules:
    """Several schedules as one, of several optimizers or of one."""

    def __init__(self, parts: Sequence[ScheduleLike]) -> None:
        self.parts = list(parts)

    def step(self) -> None:
        """Step each of them."""
        for part in self.parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """Return the state of each."""
        return {"parts": [stateful(part).state_dict() for part in self.parts]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` returned."""
        for part, own in zip(self.parts, state["parts"], strict=True):
            stateful(part).load_state_dict(own)


class OwnAttributes:
    """The state of a schedule without `state_dict`: those of its attributes that are data.

    Numbers, texts, tensors and containers of them are; the optimizer, functions and other objects are not,
    and stay as they are.
    """

    def __init__(self, part: Any) -> None:
        self._attributes: dict[str, Any] = vars(part)

    def state_dict(self) -> dict[str, Any]:
        """Return them."""
        return {name: value for name, value in self._attributes.items() if _is_data(value)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put them back."""
        self._attributes.update(state)


def as_schedule(given: Any) -> ScheduleLike | None:
    """Return a schedule, or a list or tuple of several as one; None where there is none.

    Raises:
        UserError: it cannot be stepped without arguments, or cannot be put back at a rollback.
    """
    if given is None or (isinstance(given, list | tuple) and not given):
        return None
    if isinstance(given, list | tuple):
        parts = [part for part in map(as_schedule, given) if part is not None]
        return SeveralSchedules(parts) if parts else None
    kind = type(given).__name__
    if isinstance(given, ReduceLROnPlateau):
        raise UserError("ReduceLROnPlateau needs a metric at every step; use a schedule of the step")
    if not callable(getattr(given, "step", None)) or not steps_with(given, 0):
        raise UserError(
            f"the learning-rate schedule is a {kind} that cannot be stepped by step(): return one whose "
            "step() needs no argument, for it is called once a logical step"
        )
    own = not _has_state(given)
    if own and not hasattr(given, "__dict__"):
        raise UserError(
            f"the learning-rate schedule {kind} has no attributes that could be put back at a rollback: give "
            "it state_dict() and load_state_dict()"
        )
    for name, value in vars(given).items() if own else ():
        if isinstance(value, Iterator):
            raise UserError(
                f"the learning-rate schedule {kind} keeps its place in an iterator ({name}), which cannot be "
                "put back at a rollback: count its steps in a number, or give it state_dict() and "
                "load_state_dict()"
            )
    schedule: ScheduleLike = given
    return schedule


def stateful(part: Any) -> Stateful:
    """Return what has the state of a schedule: itself, or its attributes where it has no `state_dict`."""
    found: Stateful = part if _has_state(part) else OwnAttributes(part)
    return found


def _has_state(part: Any) -> bool:
    return hasattr(part, "state_dict") and hasattr(part, "load_state_dict")


def _is_data(value: Any) -> bool:
    if isinstance(value, dict):
        return all(_is_data(name) and _is_data(each) for name, each in value.items())
    if isinstance(value, list | tuple):
        return all(map(_is_data, value))
    return value is None or isinstance(value, bool | int | float | str | Tensor)
