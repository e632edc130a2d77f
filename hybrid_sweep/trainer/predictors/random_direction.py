"""RandomDirection: the control that jumps as far as the EMA of updates would, to anywhere."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor

from hybrid_sweep.trainer.config import HybridConfig
from hybrid_sweep.trainer.layer_groups import LayerGroups
from hybrid_sweep.trainer.predictors.ema import EmaVelocity
from hybrid_sweep.trainer.train_step import TrainStep


class RandomDirection(EmaVelocity):
    """A Gaussian direction with, in each layer group, the norm of the jump that `ema` would make.

    One direction a cycle, from a generator of its own, so that the global random numbers stay where they
    are. Only the displacement is replaced: gates, veto and audit see the velocity of `ema`, since a random
    direction has no cosine worth reading. In a wide layer next to nothing of it lies along the gradient: it
    is noise that the real steps have to undo. Memory and cost: those of `ema`; drawing costs a pass a jump.

    Args:
        groups: the weights, shared with the trainer.
        decay: β of the average, per real step.
        full_steps: K, real steps of a Full phase.
        seed: of the directions.
    """

    def __init__(self, groups: LayerGroups, decay: float, full_steps: int, seed: int = 0) -> None:
        super().__init__(groups, decay, full_steps)
        self._seed = seed
        self._cycle = 0

    @classmethod
    def from_config(cls, groups: LayerGroups, config: HybridConfig, plain: TrainStep) -> Self:
        """Build the predictor of a run, seeded with `predictor_seed`."""
        return cls(groups, config.velocity_decay, config.full_steps, config.predictor_seed)

    def displacement(self, begin: float, end: float) -> Tensor:
        """Return this cycle's direction, as long as the EMA's displacement."""
        ahead = super().displacement(begin, end)
        generator = torch.Generator().manual_seed((self._seed * 1_000_003 + self._cycle) % 2**63)
        found = self.groups.flat(self._replacement(self.groups.views(ahead, real=True), generator))
        squares = zip(self.groups.squares(ahead), self.groups.squares(found), strict=True)
        self.groups.scale_(found, [(a / b) ** 0.5 if b else 0.0 for a, b in squares])
        return found

    def _replacement(self, ahead: list[Tensor], generator: torch.Generator) -> list[Tensor]:
        """Return what stands in the place of the displacement `ahead` of each parameter, of any length."""
        return [torch.randn(d.shape, generator=generator, dtype=d.dtype) for d in ahead]

    def _close(self, steps: int) -> None:
        self._cycle += 1

    def state_dict(self) -> dict[str, Any]:
        """Return every buffer, copied."""
        return {**super().state_dict(), "cycle": self._cycle}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state)
        self._cycle = state["cycle"]
