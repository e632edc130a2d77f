"""Comparing saved states to the last bit."""

import io

import torch


def travelled(state):
    """The state after a journey through bytes, read by a reader that runs no code."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def difference(one, other, where=""):
    """Where two states differ first, as text; None where they are the same. A NaN equals a NaN."""
    if isinstance(one, torch.Tensor):
        same = isinstance(other, torch.Tensor) and one.dtype == other.dtype
        same = same and one.shape == other.shape and torch.equal(one.nan_to_num(7), other.nan_to_num(7))
        return None if same else where
    if isinstance(one, dict):
        if list(one) != list(other):
            return f"{where}: {list(one)} or {list(other)}"
        return next(filter(None, (difference(one[k], other[k], f"{where}/{k}") for k in one)), None)
    if isinstance(one, list | tuple):
        if len(one) != len(other):
            return f"{where}: {len(one)} or {len(other)} items"
        pairs = enumerate(zip(one, other, strict=True))
        return next(filter(None, (difference(a, b, f"{where}/{i}") for i, (a, b) in pairs)), None)
    return None if one == other or (one != one and other != other) else f"{where}: {one} or {other}"
