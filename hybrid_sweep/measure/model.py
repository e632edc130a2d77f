"""A workload's model, ready to be trained: lazy layers have their shapes, and modes can be put back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

from torch import nn
from torch.nn.parameter import is_lazy

from hybrid_sweep.trainer.random_state import random_state, seed_random_state, set_random_state
from hybrid_sweep.workload import Workload


def built_model(workload: Workload, seed: int) -> nn.Module:
    """Return the model; layers that wait for their shapes (`nn.LazyLinear`) have seen the first batch.

    They see it in evaluation mode and draw their weights from `seed`, so that nothing depends on who asks:
    the global random numbers stay where they were, and so do the statistics of normalisation.
    """
    model = workload.build_model(seed)
    if any(is_lazy(tensor) for tensor in chain(model.parameters(), model.buffers())):
        before = random_state()
        seed_random_state(seed)
        with modes_kept(model):
            model.eval()
            workload.loss(model, workload.batch(seed, 1))
        set_random_state(before)
    return model


@contextmanager
def modes_kept(model: nn.Module) -> Iterator[None]:
    """Put every module back into its own mode, training or evaluation, afterwards."""
    modes = {module: module.training for module in model.modules()}
    yield
    for module, training in modes.items():
        module.training = training
