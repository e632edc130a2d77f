"""GradientWatch: the norm of a small part of every gradient, so that a fault is seen at once."""

from __future__ import annotations

import torch
from torch import Tensor

from hybrid_sweep.trainer.gradients import values_of
from hybrid_sweep.trainer.plain import PlainStep

PARTS = 8
"""Parameters that are watched, at most."""
LARGEST_PART = 4096
"""Elements of one: reading every gradient would cost 2.6 % of a step of the seed's test model."""
WIDE = (torch.float32, torch.float64)
"""Types whose norm needs no wider one: to ask torch for it costs a third of the measurement."""
STRIDE_ON_DEVICES = 3
"""Real steps from one to the next off the CPU, where a step of a small model is bound by kernel launches."""


class GradientWatch:
    """Measures the gradients of up to eight small parameters, spread over the depth of the model.

    The gradient of a bias is what arrives at its layer, so an explosion or a vanishing anywhere shows in the
    layers before it. Where gradients are clipped, it is their total norm, which is known.

    Args:
        plain: the training step.
    """

    def __init__(self, plain: PlainStep) -> None:
        self._plain = plain
        device = plain.parameters[0].device
        small = [p for p in plain.parameters if 0 < p.numel() <= LARGEST_PART and p.device == device]
        self._parts = small[:: -(-len(small) // PARTS)] if small else []
        self._stride = 1 if device.type == "cpu" else STRIDE_ON_DEVICES

    def measure(self, real_step: int) -> Tensor | None:
        """Return the norm [] of the newest gradient's part; None where it is not due or there is none.

        Args:
            real_step: how many there were.
        """
        if (clipped := self._plain.clipped) is not None:
            return clipped
        if real_step % self._stride:
            return None
        parts = [values_of(p.grad).flatten() for p in self._parts if p.grad is not None]
        if not parts:
            return None
        part = parts[0] if len(parts) == 1 else torch.cat(parts)
        wide = None if part.dtype in WIDE else torch.promote_types(part.dtype, torch.float32)
        norm: Tensor = torch.linalg.vector_norm(part, dtype=wide)
        return norm
