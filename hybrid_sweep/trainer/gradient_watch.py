"""GradientWatch: the norm of a small part of every gradient, so that a fault is seen at once."""

from __future__ import annotations

import torch
from torch import Tensor

from hybrid_sweep.trainer.gradients import values_of
from hybrid_sweep.trainer.train_step import TrainStep

PARTS = 8
"""Parameters that are watched, at most."""
LARGEST_PART = 4096
"""Elements of one: reading every gradient would cost 2.6 % of a step of the original's test model."""
WIDE = (torch.float32, torch.float64, torch.complex64, torch.complex128)
"""Types in which sums of squares are safe."""
STRIDE_ON_DEVICES = 3
"""Real steps from one to the next off the CPU, where a step of a small model is bound by kernel launches."""


class GradientWatch:
    """Keeps the gradients of up to eight small parameters, spread over the depth of the model.

    The gradient of a bias is what arrives at its layer, so an explosion or a vanishing anywhere shows in the
    layers before it. Where gradients are clipped, their total norm is known and kept instead.

    Args:
        plain: the training step.
    """

    def __init__(self, plain: TrainStep) -> None:
        self._plain = plain
        device = plain.parameters[0].device
        small = [p for p in plain.parameters if 0 < p.numel() <= LARGEST_PART and p.device == device]
        self._parts = small[:: -(-len(small) // PARTS)] if small else []
        self._stride = 1 if device.type == "cpu" else STRIDE_ON_DEVICES

    def take(self, real_step: int) -> Tensor | None:
        """Return a copy [m] of the newest gradient's part, or its total norm [] where it is clipped.

        The copy costs a third of what its norm does, so `norm_of` waits until the step is judged.

        Args:
            real_step: how many there were.

        Returns:
            None where none is due, or there is no gradient.
        """
        if (clipped := self._plain.clipped) is not None:
            return clipped
        if real_step % self._stride:
            return None
        parts = [_flat(gradient) for p in self._parts if (gradient := p.grad) is not None]
        return torch.cat(parts) if parts else None


def norm_of(taken: Tensor) -> Tensor:
    """Return the norm [] of what `GradientWatch.take` returned, in single precision or better."""
    if taken.dim() == 0:
        return taken
    wide = taken if taken.dtype in WIDE else taken.to(torch.promote_types(taken.dtype, torch.float32))
    return torch.vdot(wide, wide).abs().sqrt() if wide.is_complex() else wide.dot(wide).sqrt()


def _flat(gradient: Tensor) -> Tensor:
    """Return the values of a gradient as a vector; most that are watched, of biases, are one."""
    if gradient.dim() == 1 and not gradient.is_sparse:
        return gradient
    return values_of(gradient).flatten()
