"""CompiledWorkload: a workload whose loss has gone through `torch.compile`, for every arm alike."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from textwrap import shorten
from typing import Any

import torch
from torch import Tensor, nn

from hybrid_sweep.errors import UserError
from hybrid_sweep.workload import Workload


class CompiledWorkload:
    """A workload with its loss compiled; everything else, evaluation included, is its own.

    Losses are of the same kind as uncompiled ones, not equal to the last bit, and dropout draws other random
    numbers. One seed gives the same ones in every process, for nothing is chosen by timing it.

    Args:
        workload: what is trained.
        mode: "default", or "reduce-overhead": CUDA graphs on a GPU, on a CPU the same as "default".

    Attributes:
        workload: the one whose loss is compiled.
        stance: of `torch.compiler.set_stance`: what happens to a call for which there is no code yet.
    """

    def __init__(self, workload: Workload, mode: str) -> None:
        self.workload = workload
        self.stance = "default"
        # torch would start as many compiling processes as there are cores, for each worker
        os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
        options: Any = {"triton.cudagraphs": mode == "reduce-overhead", "deterministic": True}
        self._loss = torch.compile(workload.loss, dynamic=False, options=options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.workload, name)

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """Return the training loss of `batch`, the caller's to keep."""
        # A CUDA graph writes its results where it wrote the last ones. That those are done with is said here,
        # and the loss is copied, for it may be read after the next call.
        begin_step: Callable[[], None] = torch.compiler.cudagraph_mark_step_begin
        begin_step()
        with torch.compiler.set_stance(self.stance):
            return self._loss(model, batch).clone()


def compiled(workload: Workload, mode: str, warm_up: Callable[[Workload], object]) -> Workload:
    """Return `workload` with its loss compiled for all that `warm_up` does, and for nothing else.

    A later call that none of that code fits (a smaller batch, another branch) runs uncompiled, so that no arm
    is ever charged for compiling. With CUDA graphs a new model's first steps are recorded, in every arm.

    Args:
        workload: what is trained; `warm_up` works with it as it is.
        mode: of `CompiledWorkload`.
        warm_up: trains and evaluates as the arms do.

    Raises:
        UserError: the loss cannot be compiled here.
    """
    try:
        made: Any = CompiledWorkload(workload, mode)
        warm_up(made)
    except Exception as error:  # whatever torch, a compiler or its driver raises
        why = shorten(str(error).partition("\n\n")[0], 300)  # then come hints to who debugs torch
        raise UserError(
            f"the loss of {type(workload).__name__} cannot be compiled on node {platform.node()} "
            f"({type(error).__name__}: {why}): fix that (a CPU needs a C++ compiler, such as g++), "
            "or train uncompiled with compile=none"
        ) from error
    made.stance = "eager_on_recompile"
    found: Workload = made
    return found
