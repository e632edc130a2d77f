"""Snapshot: what a rollback restores, and what a saved run goes on from."""

from __future__ import annotations

from collections import OrderedDict
from copy import copy, deepcopy
from enum import StrEnum
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
    """

    def __init__(self, torchs: dict[str, Stateful], ours: dict[str, Stateful]) -> None:
        self.torchs = {name: _copied(part.state_dict()) for name, part in torchs.items()}
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
        return {"torchs": self.torchs, "ours": self.ours, "random": self.random}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Snapshot:
        """Return the snapshot whose `state_dict` this was."""
        snapshot = cls.__new__(cls)
        snapshot.torchs, snapshot.ours, snapshot.random = state["torchs"], state["ours"], state["random"]
        return snapshot


def _copied(state: Any) -> Any:
    """Copy nested containers, cloning tensors: deepcopy without its bookkeeping.

    NumPy's scalars, which schedules like to compute, become Python's.
    """
    if isinstance(state, Tensor):
        return state.detach().clone()
    if type(state) in (dict, OrderedDict):
        return {key: _copied(value) for key, value in state.items()}
    if type(state) in (list, tuple):
        return type(state)(_copied(value) for value in state)
    if isinstance(state, np.generic):
        return state.item()
    return state if isinstance(state, (int, float, str, bytes, type(None))) else deepcopy(state)


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
