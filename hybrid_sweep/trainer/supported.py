"""Which models can be trained here: those of one process, whose parameters have their shapes."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from hybrid_sweep.errors import UserError

WRAPPERS = {
    "DataParallel",
    "DistributedDataParallel",
    "FullyShardedDataParallel",
    "FSDPModule",
    "DeepSpeedEngine",
}
"""Classes by name, for most of their modules need not have been imported."""
DISTRIBUTED = "distributed training is not supported yet, each process would go its own way"


def validate_supported(model: nn.Module) -> None:
    """Refuse a model that would come out wrong, or not at all.

    Raises:
        UserError: it is distributed over processes or replicated over devices, it has sharded parameters, the
            process belongs to a group of several, or a lazy layer has not seen a batch.
    """
    for name, module in model.named_modules():
        if wrapper := WRAPPERS.intersection(_names(module)):
            what = f"the module {name}" if name else "the model"
            raise UserError(
                f"{what} is a {', '.join(sorted(wrapper))}: {DISTRIBUTED}; train the module inside it "
                "(its `.module`, or the model as it was before it was wrapped), one process a run"
            )
    for name, p in model.named_parameters():
        if "DTensor" in _names(p):
            raise UserError(
                f"the parameter {name} is a DTensor: {DISTRIBUTED}; build the model without sharding it, one "
                "process a run"
            )
        if is_lazy(p):
            raise UserError(
                f"the parameter {name} of a lazy layer has no shape yet: pass a batch through the model, as "
                "`loss_fn(model, batch)` does, before the optimizer and the trainer are built"
            )
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        processes = torch.distributed.get_world_size()
        if processes > 1:
            raise UserError(
                f"this process is one of {processes} of a process group: {DISTRIBUTED}; train one process a "
                "run, outside of the group"
            )


def _names(thing: object) -> set[str]:
    return {kind.__name__ for kind in type(thing).__mro__}
