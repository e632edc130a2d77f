"""A process of a group, in a module that a process of its own can import."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from hybrid_sweep.errors import UserError
from hybrid_sweep.trainer.config import HybridConfig
from hybrid_sweep.trainer.trainer import HybridTrainer


def refused(model):
    """Return what a trainer says of it."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    with pytest.raises(UserError) as caught:
        HybridTrainer(model, optimizer, HybridConfig(), loss_fn=lambda model, batch: model(batch).sum())
    said = str(caught.value)
    assert "\n" not in said
    return said


def rank(index, folder):
    """Write what a trainer says in one process of two."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/group", rank=index, world_size=2)
    said = [refused(net) for net in (nn.Linear(2, 1), DistributedDataParallel(nn.Linear(2, 1)))]
    dist.destroy_process_group()
    Path(folder, f"said{index}").write_text("\n".join(said), encoding="utf-8")
