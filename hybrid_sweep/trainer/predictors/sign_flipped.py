"""SignFlipped: the control that jumps the wrong way."""

from __future__ import annotations

import torch
from torch import Tensor

from hybrid_sweep.trainer.predictors.ema import EmaVelocity


class SignFlipped(EmaVelocity):
    """The jump of `ema`, backwards: does it matter where a jump goes?

    Only the displacement is turned round: gates, veto and audit see the velocity of `ema`. Unstable by
    design for H > K, where a cycle goes back further than it went ahead. Memory and cost: those of `ema`.
    """

    def displacement(self, begin: float, end: float) -> list[Tensor]:
        """Return −v̂ times the steps."""
        back = super().displacement(begin, end)
        torch._foreach_neg_(back)
        return back
