"""A run's state as bytes, which travel between processes and machines and cannot run code when read."""

from __future__ import annotations

import io
import pickle
from typing import Any

import torch

from hybrid_sweep.errors import UserError, one_line


def to_bytes(state: dict[str, Any]) -> bytes:
    """Return a state of plain containers, numbers, strings and tensors as bytes.

    Raises:
        UserError: the model's, the optimizer's or the scheduler's state holds anything else.
    """
    buffer = io.BytesIO()
    try:
        torch.save(state, buffer)
        buffer.seek(0)
        foreign = ", ".join(sorted(torch.serialization.get_unsafe_globals_in_checkpoint(buffer)))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        foreign = one_line(error)
    if foreign:
        raise UserError(
            f"the run cannot be saved, its state holds more than data ({foreign}): keep tensors, numbers and "
            "strings in the state of model, optimizer and scheduler, or name the types in "
            "torch.serialization.add_safe_globals"
        )
    return buffer.getvalue()


def from_bytes(data: bytes) -> dict[str, Any]:
    """Return the state that `to_bytes` was given, its tensors on the CPU.

    Raises:
        UserError: the bytes are damaged, or were not written by `to_bytes`.
    """
    try:
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # whatever damaged bytes make of the reader
        what = one_line(error)[:200]
        raise UserError(f"the checkpoint cannot be read ({what}): start the run again") from None
    if not isinstance(state, dict):
        raise UserError(f"the checkpoint holds {type(state).__name__}, no run: start the run again")
    return state
