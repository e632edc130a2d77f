"""Preflight: what else can be seen of a workload in seconds, and what a run of it will cost."""

from __future__ import annotations

import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from hybrid_sweep.errors import UserError, named
from hybrid_sweep.measure.reference import held_out, peak_memory_bytes, start, validate_scored
from hybrid_sweep.measure.schedule import still_made_for, validate_schedule_length
from hybrid_sweep.measure.workload_check import Finding
from hybrid_sweep.trainer.random_state import random_state, set_random_state
from hybrid_sweep.trainer.train_step import TrainStep
from hybrid_sweep.workload import Workload, quality_of

TIMED, TIMED_SECONDS = 20, 3.0
"""Steps that are timed, and the seconds after which no other one is started."""
NEAR = 1e-4
"""Share by which a loss with gradients and one without may differ."""


def preflight(workload: Workload, steps: int, own_steps: int | None = None) -> Iterator[Finding]:
    """Yield what of the recipe shows before a run: what is trained, the loss, the schedule, the results.

    Args:
        workload: what is trained.
        steps: N, logical steps of a run.
        own_steps: of the workload, where a sweep has set others; None where it has not.
    """
    yield from looked(_trained, workload)
    yield from looked(_loss, workload)
    yield from looked(_schedule, workload, steps, own_steps or steps)
    yield from looked(_results, workload)


def looked(look: Callable[..., Finding | Iterable[Finding]], *arguments: Any) -> Iterator[Finding]:
    """Yield what a look finds; where the user's code raises, that it does is what was found."""
    before = random_state()
    about = look.__name__.strip("_")
    try:
        found = look(*arguments)
        yield from [found] if isinstance(found, Finding) else found
    except UserError as error:
        yield Finding(about=about, state="problem", said=str(error))
    except Exception as error:  # the user's code
        yield Finding(
            about=about, state="problem", said=f"the workload raises {named(error)}: fix that first"
        )
    finally:
        set_random_state(before)


def _trained(workload: Workload) -> Finding:
    plain = start(workload, 0)
    known = {id(p) for group in plain.optimizer.param_groups for p in group["params"]}
    kinds = Counter(f"{p.dtype} on {p.device}".removeprefix("torch.") for p in plain.parameters)
    trained = sum(p.numel() for p in plain.parameters)
    frozen = sum(p.numel() for p in plain.model.parameters()) - trained
    left = sum(id(p) not in known for p in plain.parameters)
    said = f"{trained:,} parameters are trained ({', '.join(kinds)}), {frozen:,} are frozen"
    if left:
        said += f"; {left} tensors want a gradient and are in no group of the optimizer"
    return Finding(about="trained", state="note" if left else "ok", said=said)


def _loss(workload: Workload) -> Finding:
    """Compare the loss of the same batch with gradients and without, from the same random numbers."""
    plain, twin = start(workload, 0), start(workload, 0)
    with_gradients = float(plain(workload.batch(0, 1)))
    set_random_state(_began(workload))
    without = float(twin.look(workload.batch(0, 1)))
    if abs(with_gradients - without) <= NEAR * abs(with_gradients) or with_gradients != with_gradients:
        return Finding(
            about="loss", state="ok", said=f"{with_gradients:.6g} at first, the same without gradients"
        )
    return Finding(
        about="loss",
        state="note",
        said=f"the loss is {with_gradients:.6g} with gradients and {without:.6g} without on the same batch, "
        "so that Correct and probes see another one than training does: let it not depend on "
        "torch.is_grad_enabled()",
    )


def _began(workload: Workload) -> dict[str, Any]:
    """Return the global random numbers with which a run begins."""
    start(workload, 0)
    return random_state()


def _schedule(workload: Workload, steps: int, own_steps: int) -> Finding:
    plain = start(workload, 0, steps)
    first = plain.learning_rate
    validate_schedule_length(plain, steps)
    if unreached := still_made_for(workload, own_steps, steps):
        return Finding(about="schedule", state="note", said=unreached)
    if plain.scheduler is None:
        return Finding(
            about="schedule", state="ok", said=f"none: the learning rate is {first:.6g} throughout"
        )
    name = type(plain.scheduler).__name__
    return Finding(
        about="schedule",
        state="ok",
        said=f"{name}, for all {steps:,} steps: learning rate {first:.6g} at first, "
        f"{plain.learning_rate:.6g} at the end",
    )


def _results(workload: Workload) -> Finding:
    found = held_out(workload, start(workload, 0).model)
    validate_scored(found, workload, 0)
    said = ", ".join(f"{name} {value:.6g}" for name, value in found.items())
    return Finding(about="results", state="ok", said=f"{said}; compared by {quality_of(workload)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What was measured of plain training.

    Attributes:
        step: seconds of a plain step, its batch included.
        loading: seconds of its batch.
        evaluation: seconds of a held-out evaluation.
        peak_bytes: of a process on a CPU; of CUDA's allocations on a GPU.
    """

    step: float
    loading: float
    evaluation: float
    peak_bytes: int

    def run_seconds(self, steps: int, eval_every: int) -> float:
        """Return the seconds of a plain run."""
        return steps * self.step + (steps // eval_every + 1) * self.evaluation


def cost_of(workload: Workload) -> Cost:
    """Time plain training for a moment: medians of up to `TIMED` steps, and one evaluation."""
    before = random_state()
    plain = start(workload, 0)
    loading: list[float] = []
    whole: list[float] = []
    until = time.perf_counter() + TIMED_SECONDS
    for step in range(1, min(TIMED, workload.steps) + 1):
        began = time.perf_counter()
        batch = workload.batch(0, step)
        _wait(plain)
        loaded = time.perf_counter()
        plain(batch)
        _wait(plain)
        loading.append(loaded - began)
        whole.append(time.perf_counter() - began)
        if time.perf_counter() > until:
            break
    began = time.perf_counter()
    held_out(workload, plain.model)
    _wait(plain)
    evaluation = time.perf_counter() - began
    peak = peak_memory_bytes(plain)
    set_random_state(before)
    return Cost(
        step=median(whole),
        loading=median(loading),
        evaluation=evaluation,
        peak_bytes=peak or _process_bytes(),
    )


def _wait(plain: TrainStep) -> None:
    if plain.parameters[0].is_cuda:
        torch.cuda.synchronize(plain.parameters[0].device)


def _process_bytes() -> int:
    """Return the most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
