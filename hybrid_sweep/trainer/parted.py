"""Parted: one vector a kind of parameter (type and device), used as if it were a single tensor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor


class Parted(Tensor):
    """Vectors that differ in type or device, on which a call works as on each of them.

    Where a model has parameters of one kind the trainer holds a plain tensor, so this costs that nothing.
    What a call returns is again one tensor a kind; inner products and norms are those of the whole. A call
    that has no such meaning (its length, its type) raises TypeError. See *Extending PyTorch* in torch's
    documentation.

    Attributes:
        parts: the vectors [n_k].
    """

    parts: tuple[Tensor, ...]

    @classmethod
    def from_tensors(cls, parts: Sequence[Tensor]) -> Tensor:
        """Return several vectors as one tensor; a single one is returned as it is."""
        if len(parts) == 1:
            return parts[0]
        parted = torch.empty(0).as_subclass(cls)
        parted.parts = tuple(parts)
        return parted

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Do what `func` does, to each of the parts."""
        named = kwargs or {}
        count = next(len(a.parts) for a in (*args, *named.values()) if isinstance(a, Parted))
        results = [
            func(*(_part(a, i) for a in args), **{name: _part(a, i) for name, a in named.items()})
            for i in range(count)
        ]
        if func in (torch.dot, Tensor.dot):
            return torch.stack(_together(results)).sum()
        if func is torch.linalg.vector_norm:
            return torch.linalg.vector_norm(torch.stack(_together(results)))
        if all(isinstance(result, Tensor) for result in results):
            return cls.from_tensors(results)
        if func is Tensor.__repr__:
            return f"Parted({', '.join(results)})"
        raise TypeError(f"{func} has no meaning for parameters of several kinds")


def parts_of(vector: Tensor) -> Sequence[Tensor]:
    """Return the vector of each kind; of a plain tensor that is itself."""
    return vector.parts if isinstance(vector, Parted) else (vector,)


def common_type(parts: Sequence[Tensor]) -> torch.dtype:
    """Return the type in which numbers of all parts are compared: single precision, or better."""
    return reduce(torch.promote_types, (part.dtype for part in parts), torch.float32)


def _part(argument: Any, i: int) -> Any:
    return argument.parts[i] if isinstance(argument, Parted) else argument


def _together(scalars: Sequence[Tensor]) -> list[Tensor]:
    """Return them in one type, where the first of them is."""
    dtype, device = common_type(scalars), scalars[0].device
    return [scalar.to(device, dtype) for scalar in scalars]
