"""Norm and clipping of gradients, sparse ones included."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def values_of(gradient: Tensor) -> Tensor:
    """Return a tensor of the gradient's norm: itself, or a sparse one's values, summed by index."""
    return gradient.coalesce().values() if gradient.is_sparse else gradient


def clip_(parameters: Sequence[nn.Parameter], limit: float) -> Tensor:
    """Scale the gradients so that their total norm is at most `limit`; return the norm as it was.

    It is `torch.nn.utils.clip_grad_norm_`, which refuses sparse gradients, for those too.
    """
    if not any(p.grad is not None and p.grad.is_sparse for p in parameters):
        return nn.utils.clip_grad_norm_(parameters, limit)
    values = []
    for p in parameters:
        if p.grad is not None:
            p.grad = p.grad.coalesce() if p.grad.is_sparse else p.grad
            values.append(values_of(p.grad))
    total: Tensor = nn.utils.get_total_norm(values)
    share = torch.clamp(limit / (total + 1e-6), max=1.0)  # torch's own formula
    with torch.no_grad():
        for value in values:
            value.mul_(share.to(value.device, value.dtype))
    return total
