"""Snapshot: what a rollback restores."""

from __future__ import annotations

from copy import deepcopy
from typing import Any, Protocol

import torch
from torch import Tensor


class Stateful(Protocol):
    """Anything with torch's pair of state methods."""

    def state_dict(self) -> Any:
        """Return the state."""
        ...

    def load_state_dict(self, state: Any, /) -> Any:
        """Restore the state."""
        ...


class Snapshot:
    """A copy of the state of everything that training changes, and of torch's random numbers.

    Args:
        torchs: torch's own objects, whose `state_dict` shares memory with them and is copied here.
        ours: objects of this package, whose `state_dict` is a copy already.
    """

    def __init__(self, torchs: dict[str, Stateful], ours: dict[str, Stateful]) -> None:
        self.torchs = {name: _copied(part.state_dict()) for name, part in torchs.items()}
        self.ours = {name: part.state_dict() for name, part in ours.items()}
        self._rng = torch.get_rng_state()
        self._cuda_rng = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []

    def restore(self, torchs: dict[str, Stateful], ours: dict[str, Stateful]) -> None:
        """Put every part back; the snapshot stays usable."""
        for name, part in torchs.items():
            part.load_state_dict(_copied(self.torchs[name]))
        for name, part in ours.items():
            part.load_state_dict(self.ours[name])
        torch.set_rng_state(self._rng)
        if self._cuda_rng:
            torch.cuda.set_rng_state_all(self._cuda_rng)


def _copied(state: Any) -> Any:
    """Copy nested containers, cloning tensors: deepcopy without its bookkeeping."""
    if isinstance(state, Tensor):
        return state.detach().clone()
    if isinstance(state, dict):
        return {key: _copied(value) for key, value in state.items()}
    if type(state) in (list, tuple):
        return type(state)(_copied(value) for value in state)
    return state if isinstance(state, (int, float, str, bytes, type(None))) else deepcopy(state)
