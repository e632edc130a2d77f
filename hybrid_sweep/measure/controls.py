"""Control arms: what the same budget reaches without prediction."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from hybrid_sweep.measure.reference import held_out, start
from hybrid_sweep.trainer.corrector import micro_correction_due
from hybrid_sweep.trainer.phases import Phase, tail_begin
from hybrid_sweep.trainer.records import Segment
from hybrid_sweep.trainer.tail import TailAverage
from hybrid_sweep.workload import Workload


def frozen_run(
    workload: Workload, seed: int, trace: Sequence[Segment], averaged_fraction: float = 0.0
) -> dict[str, float]:
    """Repeat a run's phases with zero displacement; return its held-out results.

    Real steps fall on the same logical steps, batches and learning rates. The forward passes of Correct and
    of probes are repeated too, for they move BatchNorm's buffers and draw dropout's random numbers.

    Args:
        workload: what was trained.
        seed: of model, data order and global random numbers.
        trace: the run's phases.
        averaged_fraction: share of the run, at its end, whose weights are averaged, as `tail="average"` does.
    """
    plain = start(workload, seed)
    tail = TailAverage([p.detach() for p in plain.parameters])
    begin = tail_begin(sum(segment.length for segment in trace), averaged_fraction)
    step = 0
    for segment in trace:
        for into in range(1, segment.length + 1):
            step += 1
            if Phase(segment.phase).is_real:
                plain(workload.batch(seed, step))
                if step > begin:
                    tail.observe()
                continue
            if segment.phase == Phase.CORRECT or micro_correction_due(into, segment.interval):
                with torch.no_grad():
                    workload.loss(plain.model, workload.batch(seed, step))
            plain.skip(1)
    tail.finish()
    return held_out(workload, plain.model)
