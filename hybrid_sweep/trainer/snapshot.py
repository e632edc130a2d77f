"""Snapshot: what a rollback restores, and what a saved run goes on from."""

from __future__ import annotations

from collections import OrderedDict
from copy import copy, deepcopy
from enum import StrEnum
from itertools import zip_longest
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from hybrid_sweep.trainer.parted import Parted
from hybrid_sweep.trainer.random_state import random_state, set_random_state


class Stateful(Protocol):
    """Anything with torch's pair of state methods."""

    def state_dict(self) -> Any:
        """Return the state."""
        ...

    def load_state_dict(self, state: Any, /) -> Any:
        """Restore the state."""
        ...


class Snapshot:
    """A copy of the state of everything that training changes, and of the global random numbers.

    Args:
        torchs: torch's own objects, whose `state_dict` shares memory with them and is copied here.
        ours: objects of this package, whose `state_dict` is a copy already.
        kept: a snapshot that this one replaces: its buffers are written over where it is `own`.

    Attributes:
        own: whether no one else can have its tensors, since it was neither handed out nor taken up.
    """

    own: bool

    def __init__(
        self, torchs: dict[str, Stateful], ours: dict[str, Stateful], kept: Snapshot | None = None
    ) -> None:
        old: dict[str, Any] = kept.torchs if kept is not None and kept.own else {}
        self.own = True
        self.torchs: dict[str, Any] = {
            name: _copied(part.state_dict(), old.get(name)) for name, part in torchs.items()
        }
        self.ours = {name: part.state_dict() for name, part in ours.items()}
        self.random = random_state()

    def restore(self, torchs: dict[str, Stateful], ours: dict[str, Stateful]) -> None:
        """Put every part back; the snapshot stays usable."""
        for name, part in torchs.items():
            state = _copied(self.torchs[name])
            if isinstance(part, nn.Module):  # its own container knows the versions of its layers
                container = copy(part.state_dict())
                container.clear()
                container.update(state)
                state = container
            part.load_state_dict(state)
        for name, part in ours.items():
            part.load_state_dict(self.ours[name])
        set_random_state(self.random)

    def state_dict(self) -> dict[str, Any]:
        """Return the snapshot itself, to be saved as `plain` data."""
        self.own = False
        return {"torchs": self.torchs, "ours": self.ours, "random": self.random}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Snapshot:
        """Return the snapshot whose `state_dict` this was."""
        snapshot = cls.__new__(cls)
        snapshot.torchs, snapshot.ours, snapshot.random = state["torchs"], state["ours"], state["random"]
        snapshot.own = False
        return snapshot


def _copied(state: Any, kept: Any = None) -> Any:
    """Copy nested containers and tensors: deepcopy without its bookkeeping.

    NumPy's scalars, which schedules like to compute, become Python's. Tensors are copied into those that an
    earlier copy, `kept`, has in their place, if they fit: fresh memory costs more than the copying.
    """
    if isinstance(state, Tensor):
        return kept.copy_(state.detach()) if _fits(kept, state) else state.detach().clone()
    if type(state) in (dict, OrderedDict):
        known = kept if isinstance(kept, dict) else {}
        return {key: _copied(value, known.get(key)) for key, value in state.items()}
    if type(state) in (list, tuple):
        old = kept if isinstance(kept, list | tuple) else ()
        return type(state)(_copied(value, was) for value, was in zip_longest(state, old[: len(state)]))
    if isinstance(state, np.generic):
        return state.item()
    return state if isinstance(state, (int, float, str, bytes, type(None))) else deepcopy(state)


def _fits(kept: Any, tensor: Tensor) -> bool:
    """Return whether a copy of `tensor` can lie where `kept` does, in the same order in memory."""
    return (
        type(kept) is Tensor
        and kept.layout == tensor.layout == torch.strided
        and (kept.dtype, kept.device) == (tensor.dtype, tensor.device)
        and (kept.shape, kept.stride()) == (tensor.shape, tensor.stride())
    )


_LEAVES = {float, int, str, bool, type(None), Tensor}


def plain(state: Any) -> Any:
    """Return nested containers as dictionaries, lists, tuples, numbers, strings and tensors.

    So named tuples lose their names, enumerations their type, and arrays become tensors of the same memory,
    and a `Parted` the list of its tensors.
    """
    kind = type(state)
    if kind in _LEAVES:  # most of what there is
        return state
    if kind in (dict, OrderedDict):
        return {plain(key): plain(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return (list if isinstance(state, list) else tuple)(map(plain, state))
    if isinstance(state, np.ndarray):
        return torch.from_numpy(state)
    if isinstance(state, Parted):
        return list(state.parts)
    return str(state) if isinstance(state, StrEnum) else state
