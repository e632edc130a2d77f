"""A look at a shared GPU before a trial lands on it: Ray shares out fractions, but no memory."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from typing import Any

import pynvml

from hybrid_sweep.errors import UserError
from hybrid_sweep.measure.reference import Reference

HEADROOM = 1.2
"""Over plain training: the predictor's own memory (checklist 5 allows as much)."""
GIB = 2**30


def needed_bytes(references: Mapping[int, Reference], share: float) -> int | None:
    """Return what a trial needs to find free, from plain training's peak; None where it has a GPU alone."""
    peaks = [r.peak_memory_bytes for r in references.values() if r.peak_memory_bytes]
    return int(max(peaks) * HEADROOM) if peaks and 0 < share < 1 else None


def shortage(needed: int | None, nvml: Any = pynvml) -> str | None:
    """Return in a sentence what this worker's GPU lacks, or None where the trial fits.

    Args:
        needed: bytes; None asks for nothing.
        nvml: the NVML module, or one like it.

    Raises:
        UserError: it would not fit on an empty one either.
    """
    if needed is None:
        return None
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0] or "0"
    nvml.nvmlInit()
    try:
        by_index = visible.isdecimal()
        handle = (
            nvml.nvmlDeviceGetHandleByIndex(int(visible))
            if by_index
            else nvml.nvmlDeviceGetHandleByUUID(visible)
        )
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    finally:
        nvml.nvmlShutdown()
    gpu, needs = f"GPU {visible} of node {platform.node()}", f"a trial needs {needed / GIB:.1f} GiB"
    if needed > memory.total:
        raise UserError(
            f"{gpu} has {memory.total / GIB:.1f} GiB in all, and {needs}: give it a GPU of its own"
        )
    return None if memory.free >= needed else f"{gpu} has {memory.free / GIB:.1f} GiB free, and {needs}"
