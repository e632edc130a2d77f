"""Control arms: what the same budget reaches without prediction."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from hybrid_sweep.measure.reference import start
from hybrid_sweep.trainer.phases import Phase
from hybrid_sweep.trainer.records import Segment
from hybrid_sweep.workload import Workload


def frozen_run(workload: Workload, seed: int, trace: Iterable[Segment]) -> dict[str, float]:
    """Repeat a run's phases with zero displacement; return its held-out results.

    Real steps fall on the same logical steps, batches and learning rates. Correct's forward passes are
    repeated where the model has buffers (BatchNorm), which they move.
    """
    plain = start(workload, seed)
    has_buffers = any(True for _ in plain.model.buffers())
    step = 0
    for segment in trace:
        real = segment.phase in (Phase.WARMUP, Phase.FULL)
        forward = segment.phase == Phase.CORRECT and has_buffers
        for at in range(step + 1, step + segment.length + 1):
            if real:
                plain(workload.batch(seed, at))
                continue
            if forward:
                with torch.no_grad():
                    workload.loss(plain.model, workload.batch(seed, at))
            plain.skip(1)
        step += segment.length
    return workload.evaluate(plain.model, "val")
