"""Shuffled: the control that jumps with the right numbers in the wrong places."""

from __future__ import annotations

import torch
from torch import Tensor

from hybrid_sweep.trainer.predictors.random_direction import RandomDirection


class Shuffled(RandomDirection):
    """The jump of `ema` with its entries shuffled across all layers, each layer group as far as before.

    What a random direction keeps of the jump is its length in each group; this keeps the distribution of its
    entries too, and loses only which weight each of them belongs to. One permutation a cycle, from a
    generator of its own; gates, veto and audit see the velocity of `ema`. Memory: one copy of the weights
    more than `ema` and an index a weight, both in a jump alone; cost: a permutation a jump.
    """

    def _replacement(self, ahead: list[Tensor], generator: torch.Generator) -> list[Tensor]:
        entries = torch.cat([delta.flatten().to(ahead[0].device) for delta in ahead])
        order = torch.randperm(len(entries), generator=generator).to(entries.device)
        parts = torch.split(entries[order], [delta.numel() for delta in ahead])
        return [part.view_as(delta) for part, delta in zip(parts, ahead, strict=True)]
