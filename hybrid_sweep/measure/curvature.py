"""Curvature: the largest learning rate × curvature along plain training, which the stability mask takes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW

from hybrid_sweep.errors import UserError, one_line
from hybrid_sweep.measure.reference import OnProgress, ignore_progress, start
from hybrid_sweep.trainer.optimizers import OptimizerLike
from hybrid_sweep.trainer.random_state import random_state, set_random_state
from hybrid_sweep.trainer.train_step import TrainStep
from hybrid_sweep.workload import Workload

SHARES = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Of the run, where it is measured: jumps begin after warm-up and end before the tail."""
BATCHES = 4
"""Newest batches over which the loss is averaged: one alone is curved more than what training sees."""
ITERATIONS = 60
TOLERANCE = 1e-3
"""Change of the eigenvalue, as a share of it, at which the power iteration ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Curvature:
    """Largest ηλ along a plain run, in units in which 2 is the edge of stability of its optimizer.

    Attributes:
        steps: logical steps at which it was measured.
        eta_lambda: at each of them; not positive where the loss curves upwards in no direction.
        why_not: why it could not be measured, in words; "" where it was.
    """

    steps: list[int]
    eta_lambda: list[float]
    why_not: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


def measure_curvature(
    workload: Workload, seed: int, steps: int, on_progress: OnProgress = ignore_progress
) -> Curvature:
    """Train plainly and measure the largest ηλ at a few steps of the run.

    λ is the largest eigenvalue of the Hessian of the training loss, by power iteration with Hessian-vector
    products of autograd. Each parameter's η stands inside it: learning rate, Adam's 1/(√v̂ + ε), and what
    momentum does to the edge of stability, so that gradient descent's 2 is everybody's: 2(1+μ)/η for heavy
    ball, 2(1+μ)/((1+2μ)η) for Nesterov (Cohen et al. 2021, arXiv:2103.00065), and for Adam
    2(1+β₁)/((1−β₁)η) on the preconditioned Hessian (Cohen et al. 2022, arXiv:2207.14484).

    It trains a model of its own; the global random numbers are left as they were found. The same arguments
    give the same numbers.

    Args:
        workload: what to train.
        seed: of model, data order and global random numbers.
        steps: N, logical steps of a run.
        on_progress: told at each step how many are done.
    """
    before = random_state()
    plain = start(workload, seed, steps)
    at = sorted({max(round(share * steps), 1) for share in SHARES})
    newest: deque[Any] = deque(maxlen=BATCHES)
    found: list[float] = []
    why_not = ""
    for step in range(1, at[-1] + 1):
        on_progress(step - 1, at[-1])
        newest.append(workload.batch(seed, step))
        plain(newest[-1])
        if step in at:
            try:
                found.append(largest_eta_lambda(plain, newest))
            except (UserError, RuntimeError) as error:  # what autograd raises without a second derivative
                why_not = one_line(error)
                break
    set_random_state(before)
    return Curvature(steps=[] if why_not else at, eta_lambda=[] if why_not else found, why_not=why_not)


def largest_eta_lambda(plain: TrainStep, batches: Sequence[Any] | deque[Any]) -> float:
    """Return the largest ηλ of the mean loss of `batches`, as `measure_curvature` says.

    Training goes on as if it had not been measured: same weights, buffers and random numbers. Cost: a
    forward and a backward pass, and one more backward pass through both for each of up to 120 products.

    Raises:
        UserError: an optimizer whose edge of stability is not known, or a curvature that is not finite.
        RuntimeError: a loss that autograd cannot differentiate twice.
    """
    rates = _rates(plain.optimizer)
    parameters = [p for p in plain.parameters if id(p) in rates]
    roots = [torch.as_tensor(rates[id(p)][0]).to(p).sqrt() for p in parameters]
    decays = [rates[id(p)][1] for p in parameters]
    before = random_state()
    losses = []
    for batch in batches:
        with _own_buffers(plain.model):
            losses.append(plain.loss_fn(plain.model, batch))
    loss = torch.stack(losses).mean()
    gradients = torch.autograd.grad(loss, parameters, create_graph=True, allow_unused=True)
    set_random_state(before)
    curved = [(i, g) for i, g in enumerate(gradients) if g is not None and g.requires_grad]

    def product(vector: list[Tensor]) -> list[Tensor]:
        """Return D(H + weight decay)D `vector`, where D² is η."""
        scaled = [root * v for root, v in zip(roots, vector, strict=True)]
        found = torch.autograd.grad(
            [g for _, g in curved],
            parameters,
            [scaled[i] for i, _ in curved],
            retain_graph=True,
            allow_unused=True,
        )
        return [
            root * ((0 if h is None else h) + decay * v)
            for root, h, decay, v in zip(roots, found, decays, scaled, strict=True)
        ]

    if not curved:
        return 0.0
    generator = torch.Generator().manual_seed(0)
    begin = [torch.randn(p.shape, generator=generator).to(p) for p in parameters]
    _validate_twice_differentiable(plain.model, curved, begin)
    value = _dominating(product, begin)
    if value < 0:  # the other end of the spectrum is farther from 0: look from there
        value += _dominating(partial(_shifted, product, value), begin)
    if not torch.isfinite(torch.tensor(value)):
        raise UserError(f"the curvature is {value} along plain training")
    return value


@contextmanager
def _own_buffers(model: nn.Module) -> Iterator[None]:
    """Lend the model copies of its buffers: the graph of a forward pass holds on to those that it moves."""
    lent = [(module, *named) for module in model.modules() for named in module.named_buffers(recurse=False)]
    for module, name, buffer in lent:
        setattr(module, name, buffer.clone())
    try:
        yield
    finally:
        for module, name, buffer in lent:
            setattr(module, name, buffer)


def _validate_twice_differentiable(
    model: nn.Module, curved: Sequence[tuple[int, Tensor]], vector: list[Tensor]
) -> None:
    """Differentiate the gradients in every direction, once.

    Towards the parameters alone, autograd passes by what `once_differentiable` functions left out, and the
    product would be wrong without a word.

    Raises:
        RuntimeError: there is such a function.
    """
    kept = [(p, p.grad) for p in model.parameters()]
    for p, _ in kept:
        p.grad = None
    try:
        torch.autograd.backward([g for _, g in curved], [vector[i] for i, _ in curved], retain_graph=True)
    finally:
        for p, gradient in kept:
            p.grad = gradient


def _dominating(product: Callable[[list[Tensor]], list[Tensor]], begin: list[Tensor]) -> float:
    """Return the eigenvalue of largest magnitude, by power iteration from `begin`."""
    vector, value = _normalised(begin), 0.0
    for _ in range(ITERATIONS):
        ahead = product(vector)
        newest = float(sum(torch.vdot(a.flatten(), v.flatten()) for a, v in zip(ahead, vector, strict=True)))
        if abs(newest - value) <= TOLERANCE * abs(newest):
            return newest
        vector, value = _normalised(ahead), newest
    return value


def _shifted(
    product: Callable[[list[Tensor]], list[Tensor]], shift: float, vector: list[Tensor]
) -> list[Tensor]:
    return [h - shift * v for h, v in zip(product(vector), vector, strict=True)]


def _normalised(vector: list[Tensor]) -> list[Tensor]:
    norm = float(nn.utils.get_total_norm(vector))
    return [v / norm if norm else v for v in vector]


def _rates(optimizer: OptimizerLike) -> dict[int, tuple[Tensor | float, float]]:
    """Return η of each parameter, by id, in units in which 2 is the edge of stability, and weight decay.

    AdamW's own decay is left out: it adds no more than learning rate × weight decay.

    Raises:
        UserError: another optimizer than SGD, Adam and AdamW.
    """
    rates: dict[int, tuple[Tensor | float, float]] = {}
    for group in optimizer.param_groups:
        lr = float(group["lr"])
        for p in group["params"]:
            if isinstance(optimizer, Adam | AdamW):
                beta1, beta2 = (float(beta) for beta in group["betas"])
                state = optimizer.state[p]
                squares = state["max_exp_avg_sq" if group["amsgrad"] else "exp_avg_sq"]
                spread = (squares / (1 - beta2 ** float(state["step"]))).sqrt() + group["eps"]
                decay = 0.0 if isinstance(optimizer, AdamW) else group["weight_decay"]
                rates[id(p)] = lr * (1 - beta1) / (1 + beta1) / spread, decay
            elif isinstance(optimizer, SGD):
                momentum = float(group["momentum"])
                ahead = 1 + 2 * momentum if group["nesterov"] else 1 - group["dampening"] * (momentum > 0)
                rates[id(p)] = lr * ahead / (1 + momentum), group["weight_decay"]
            else:
                name = type(optimizer).__name__
                raise UserError(f"the edge of stability of {name} is not known, only of SGD, Adam and AdamW")
    return rates
