"""Whether a workload's trials can be trained together, how many fit in memory, and whether it pays."""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass
from math import inf
from statistics import median
from typing import Any, Literal

import torch
from torch import Tensor

from hybrid_sweep.measure.reference import start
from hybrid_sweep.trainer.fused import FusedStep
from hybrid_sweep.trainer.random_state import random_state
from hybrid_sweep.trainer.train_step import PendingStep, TrainStep
from hybrid_sweep.workload import Workload

TRIED = (4, 16, 64)
"""Sizes of a pack that `auto` measures."""
PAYS_BELOW = 0.9
"""Time of a fused step, as a share of as many single ones, below which `auto` packs."""
BLOCK, BLOCKS = 48, 7
"""Real steps, fused or single, that are timed in one go, and how often both alternate."""
CHECKED_STEPS = 3
WEIGHT_COPIES = 8
"""Copies of its weights that a trial holds, those of its optimizer aside: weights, gradients and their
stack, the averages of predictor and tail, a displacement, and the checkpoint of weights and averages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchSize:
    """How many trials a worker trains at once, and in a sentence why, where there is something to say."""

    size: int
    why: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


def packing(workload: Workload, asked: int | Literal["auto"], most: int, share: float = 1.0) -> BatchSize:
    """Decide how many trials a worker trains at once.

    Args:
        workload: what is trained.
        asked: so many, as far as they fit; or "auto": as many as train fastest.
        most: more would find nothing to do.
        share: of its machine's memory, or of its GPU's, that a worker may take.
    """
    wanted = most if asked == "auto" else min(asked, most)
    if wanted < 2:
        idle = "" if asked == 1 else "trials are trained one at a time: there is a worker for each"
        return BatchSize(size=1, why=idle)
    if why := obstacle(workload):
        return BatchSize(size=1, why=f"trials are trained one at a time: {why}")
    room = share * free_bytes(workload) / bytes_of_member(workload)
    if room < 2:
        return BatchSize(size=1, why="trials are trained one at a time: memory has no room for two")
    if asked == "auto":
        return _fastest(workload, int(min(wanted, room)))
    short = f", for memory has no room for {asked}" if room < wanted else ""
    size = int(min(wanted, room))
    return BatchSize(size=size, why=f"a worker trains {size} trials at once{short}")


def obstacle(workload: Workload) -> str:
    """Return in a clause why trials cannot be trained together, found out by trying; "" where they can."""
    ours, theirs = ([start(workload, seed) for seed in (0, 1)] for _ in range(2))
    known = {id(p) for group in theirs[0].optimizer.param_groups for p in group["params"]}
    if not known.issuperset(map(id, theirs[0].parameters)):
        return "its optimizer does not hold every trainable parameter"
    began, before, fused = [_weights(plain) for plain in ours], random_state(), FusedStep(2)
    for t in range(1, CHECKED_STEPS + 1):
        batches = [workload.batch(seed, t + CHECKED_STEPS * seed) for seed in (0, 1)]
        losses = [float(plain(batch)) for plain, batch in zip(theirs, batches, strict=True)]
        if not _same(before, random_state()):
            return "its training draws random numbers (dropout?), of which each trial has its own sequence"
        taken = fused([PendingStep(plain, batch) for plain, batch in zip(ours, batches, strict=True)])
        if fused.refused:
            return f"its loss cannot be computed for many models at once ({fused.refused})"
        for plain, loss in zip(ours, losses, strict=True):
            found = taken[plain]
            if isinstance(found, Exception):
                return str(found)
            if not abs(float(found) - loss) <= _tolerance(plain) * abs(loss):
                return f"together, a loss of step {t} is {float(found):.6g} and not {loss:.6g}"
    if not fused.steps:
        return "its batches differ in shape, or hold something that is no tensor"
    for one, other, first in zip(ours, theirs, began, strict=True):
        found_weights = _weights(one)
        for name, value in _weights(other).items():
            apart, moved = (found_weights[name] - value).norm(), (value - first[name]).norm()
            if not apart <= 0.01 * moved + _tolerance(one) * value.norm():
                return f"together, {name} does not become what it is alone"
    return ""


def bytes_of_member(workload: Workload) -> int:
    """Return about how much memory one more trial of a pack takes."""
    plain, batch = start(workload, 0), workload.batch(0, 1)
    own = {p.untyped_storage().data_ptr() for p in plain.parameters}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        plain(batch)
    moments = _tensors(plain.optimizer.state_dict())
    return WEIGHT_COPIES * _bytes(plain.parameters) + 2 * _bytes(moments) + 2 * sum(kept.values())


def free_bytes(workload: Workload) -> float:
    """Return the memory that is free where the workload's model lives; infinite where it is not known."""
    weights = start(workload, 0).parameters[0]
    if weights.is_cuda:
        return float(torch.cuda.mem_get_info(weights.device)[0])
    try:
        return float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (ValueError, OSError):
        return inf


def fused_ratio(workload: Workload, size: int) -> float:
    """Return the time of a fused step of `size` trials over that of as many steps taken one by one.

    Blocks of both alternate, and the median of their ratios is taken, so that a busy machine disturbs both;
    on a CPU it is CPU time, on a GPU the time until the work of a block is done. The members stand at steps
    of their own, as those of a sweep do.
    """
    single, members, fused = start(workload, 0), [start(workload, 0) for _ in range(size)], FusedStep(size)
    weights, rounds = single.parameters[0], max(BLOCK // size, 1)

    def clock() -> float:
        if not weights.is_cuda:
            return time.process_time()
        torch.cuda.synchronize(weights.device)
        return time.perf_counter()

    def alone() -> float:
        began = clock()
        for t in range(BLOCK):
            single(workload.batch(0, t % workload.steps + 1))
        return (clock() - began) / BLOCK

    def together() -> float:
        began = clock()
        for t in range(rounds):
            steps = [(t + i) % workload.steps + 1 for i in range(size)]
            fused([PendingStep(plain, workload.batch(0, s)) for plain, s in zip(members, steps, strict=True)])
        return (clock() - began) / (rounds * size)

    alone(), together()
    return median(together() / alone() for _ in range(BLOCKS))


def _fastest(workload: Workload, most: int) -> BatchSize:
    """Measure packs of several sizes and choose one, or none where no size pays."""
    ratios = {size: fused_ratio(workload, size) for size in sorted({*TRIED, most}) if 2 <= size <= most}
    told = ", ".join(f"{size} in {ratio:.2f}" for size, ratio in ratios.items())
    best = min(ratios, key=lambda size: ratios[size])
    measured = f"(a fused step of {told} of the time of as many single ones)"
    if ratios[best] > PAYS_BELOW:
        return BatchSize(
            size=1, why=f"packing does not pay here: trials are trained one at a time {measured}"
        )
    return BatchSize(size=best, why=f"a worker trains {best} trials at once {measured}")


def _weights(plain: TrainStep) -> dict[str, Tensor]:
    """Return a copy of the weights and buffers."""
    return {name: value.detach().double() for name, value in plain.model.state_dict().items()}


def _tolerance(plain: TrainStep) -> float:
    """Return how far sums in another order may lie apart, relatively."""
    return float(torch.finfo(plain.parameters[0].dtype).eps ** 0.5)


def _tensors(state: Any) -> list[Tensor]:
    """Return the tensors in nested containers."""
    if isinstance(state, Tensor):
        return [state]
    inside = state.values() if isinstance(state, dict) else state if isinstance(state, list | tuple) else ()
    return [tensor for each in inside for tensor in _tensors(each)]


def _bytes(tensors: list[Any]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _same(one: Any, other: Any) -> bool:
    """Compare nested containers of tensors and numbers."""
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(value, other[name]) for name, value in one.items())
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)
