"""TrainStep: one real training step, the same code for the hybrid and for what it is compared with."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from functools import partial
from math import hypot
from statistics import fmean
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from hybrid_sweep.errors import UserError, named
from hybrid_sweep.trainer.forward import ForwardPass
from hybrid_sweep.trainer.gradients import clip_, values_of
from hybrid_sweep.trainer.learning_rates import as_schedule
from hybrid_sweep.trainer.optimizers import OptimizerLike, StepTaker, as_optimizer, scaled_rates, with_modes
from hybrid_sweep.trainer.supported import validate_supported

if TYPE_CHECKING:
    from hybrid_sweep.trainer.layer_groups import LayerGroups

LossFunction = Callable[[Any, Any], Tensor]
Backward = Callable[[Tensor], object]
Batches = Callable[[int], Any] | Sequence[Any] | Iterable[Any]


class TrainStep:
    """Forward, loss, backward, clipping, optimizer and schedule of one step.

    The optimizer decides when the first four happen (`StepTaker`), and how often: LBFGS evaluates its step
    several times.

    Attributes:
        look: computes the loss of a batch without a backward pass.
        steps: real steps so far.
        backward_calls: backward passes so far.
        scheduler: stepped once a logical step; None where there is none.
        parameters: those that are trained.
        schedule_steps: logical steps that the schedule is made for, which it is stepped at most; that a table
            of as many rates has none for the time after the last is no error. None: there may be any number.
        rehearses: whether a schedule that ends stands still, where it is otherwise refused.
        rate_factor: multiplies the learning rate within each step of the optimizer; None does not.

    Raises:
        UserError: for a schedule that needs a metric, an optimizer or schedule that lacks something
            (`as_optimizer`, `as_schedule`), a model that cannot be trained here (`validate_supported`) or has
            nothing to train, an optimizer that has others than the model's, or a norm that is not positive.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Any,
        loss_fn: LossFunction,
        lr_scheduler: Any = None,
        max_grad_norm: float | None = None,
        backward: Backward = torch.autograd.backward,
    ) -> None:
        validate_supported(model)
        self.scheduler = as_schedule(lr_scheduler)
        self.model = model
        self.parameters: list[nn.Parameter] = []
        self._kinds: dict[nn.Parameter, tuple[torch.dtype, torch.device]] = {}
        self.list_parameters()
        if not self.parameters:
            raise UserError(
                "the model has no trainable parameter: set requires_grad on what is to be trained"
            )
        self.use(as_optimizer(optimizer))
        if foreign := len(_of_optimizer(self.optimizer).difference(map(id, model.parameters()))):
            raise UserError(
                f"the optimizer has parameters that the model does not have ({foreign}), which no rollback "
                "and no saved run would know: build one model of all that is trained"
            )
        if max_grad_norm is not None and not max_grad_norm > 0:
            raise UserError(f"max_grad_norm={max_grad_norm} is not allowed: a norm above 0, or None")
        self.loss_fn = loss_fn
        self.look = ForwardPass(model, loss_fn)
        self.steps = 0
        self.backward_calls = 0
        self.schedule_steps: int | None = None
        self.rate_factor: Callable[[], float] | None = None
        self.max_grad_norm = max_grad_norm
        self.backward = backward
        self.rehearses = False
        self._clipped: Tensor | None = None
        self._scheduled = 0  # steps of the schedule so far

    def use(self, optimizer: OptimizerLike) -> None:
        """Train with `optimizer` from here on, in its mode of training where it has one."""
        for part in with_modes(optimizer):
            part.train()
        self.optimizer = optimizer
        self._take = StepTaker(optimizer, self.parameters)

    def list_parameters(self) -> None:
        """Find what is trained; the optimizer's state follows parameters that were converted or moved.

        The gradients of all parameters are measured and clipped, so one that is unfrozen is so at once.
        """
        self._all_parameters = list(self.model.parameters())
        self.parameters[:] = [p for p in self._all_parameters if p.requires_grad]
        before, self._kinds = self._kinds, {p: (p.dtype, p.device) for p in self._all_parameters}
        if any(before.get(p, kind) != kind for p, kind in self._kinds.items()):
            self.optimizer.load_state_dict(self.optimizer.state_dict())

    def __call__(self, batch: Any) -> Tensor:
        """Train on `batch`; return its loss, a scalar on the device."""
        return self._step(partial(self._backward, batch))

    def take(self, loss: Tensor) -> Tensor:
        """Take the step whose gradient lies in the parameters already, `loss` being that of its batch."""
        return self._step(partial(self.count, loss))

    def count(self, loss: Tensor) -> Tensor:
        """Count a backward pass whose gradient lies in the parameters, and clip that; return `loss`."""
        self.backward_calls += 1
        limit = self.max_grad_norm
        self._clipped = None if limit is None else clip_(self._all_parameters, limit)
        return loss

    def _step(self, evaluate: Callable[[], Tensor]) -> Tensor:
        if self.rate_factor is None:
            loss = self._take(evaluate)
        else:
            with scaled_rates(self.optimizer, self.rate_factor()):
                loss = self._take(evaluate)
        self.steps += 1
        if self.scheduler is not None:
            self.skip(1)
        return loss.detach()

    def _backward(self, batch: Any) -> Tensor:
        """Compute the gradient on `batch`; return the loss."""
        self.optimizer.zero_grad()
        loss = self.loss_fn(self.model, batch)
        if not (isinstance(loss, Tensor) and loss.requires_grad and loss.numel() == 1):
            raise UserError(
                f"the loss is {_described(loss)}: return a tensor of one number, such as the mean over the "
                "batch, that was computed with the trainable parameters; several losses are added up, each "
                "with the weights detached that it is not to train"
            )
        self.backward(loss)
        return self.count(loss)

    @property
    def clipped(self) -> Tensor | None:
        """The total norm of the newest gradient before it was clipped; None where nothing is clipped."""
        return self._clipped

    def gradient_norm(self) -> float:
        """Return the total norm of the newest gradient, before clipping."""
        if self._clipped is not None:
            return float(self._clipped)
        gradients = [values_of(p.grad) for p in self._all_parameters if p.grad is not None]
        return hypot(*torch.stack(torch._foreach_norm(gradients)).tolist()) if gradients else 0.0

    def state_dict(self) -> dict[str, Any]:
        """Return the steps of the schedule, and copies of the gradients that the optimizer does not know.

        Those, by position, add up.
        """
        gradients = {i: p.grad.clone() for i, p in self._unknown().items() if p.grad is not None}
        return {"gradients": gradients, "scheduled": self._scheduled}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` returned, which stays as it is."""
        gradients = state["gradients"]
        for i, p in self._unknown().items():
            p.grad = gradients[i].to(p.device, copy=True) if i in gradients else None
        self._scheduled = state["scheduled"]

    def _unknown(self) -> dict[int, nn.Parameter]:
        known = _of_optimizer(self.optimizer)
        return {i: p for i, p in enumerate(self.parameters) if id(p) not in known}

    @property
    def passes(self) -> float:
        """Backward passes of a real step, on average so far; 1 before the first."""
        return self.backward_calls / self.steps if self.steps else 1.0

    @property
    def learning_rate(self) -> float:
        """Learning rate of the next step, the mean over the optimizer's parameter groups."""
        rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        return rates[0] if len(rates) == 1 else fmean(rates)

    def skip(self, steps: int) -> float:
        """Advance the schedule by `steps` logical steps; return their mean learning rate."""
        if self.scheduler is None:
            return self.learning_rate
        rates = []
        for _ in range(steps):
            rates.append(self.learning_rate)
            if self.schedule_steps is None or self._scheduled < self.schedule_steps:
                self._step_schedule()
        return fmean(rates) if rates else self.learning_rate

    def _step_schedule(self) -> None:
        assert self.scheduler is not None
        try:
            self.scheduler.step()
        except Exception as error:  # whatever a schedule says at its end
            if self.rehearses or self._scheduled + 1 == self.schedule_steps:
                self.schedule_steps = self._scheduled  # no step is left for the rate that it lacks
                return
            raise UserError(
                f"the learning-rate schedule {type(self.scheduler).__name__} ends after {self._scheduled} "
                f"steps ({named(error)}): make it for as many as the run has"
            ) from error
        self._scheduled += 1


def _of_optimizer(optimizer: OptimizerLike) -> set[int]:
    return {id(p) for group in optimizer.param_groups for p in group["params"]}


def _described(loss: Any) -> str:
    if not isinstance(loss, Tensor):
        return f"a {type(loss).__name__}"
    return f"a tensor of shape {tuple(loss.shape)}" + " without a gradient" * (not loss.requires_grad)


class PendingStep(NamedTuple):
    """A real step that is due: who takes it, on what, and the vector of its weights where there is one."""

    plain: TrainStep
    batch: Any
    groups: LayerGroups | None = None


T = TypeVar("T")
StepGenerator = Generator[PendingStep, Any, T]
"""Training that yields each real step, and is sent its loss by the caller that has taken it."""


def run_to_completion(steps: StepGenerator[T]) -> T:
    """Take every real step of `steps` by itself; return what it returns."""
    loss = None
    while True:
        try:
            real = steps.send(loss)
        except StopIteration as end:
            result: T = end.value
            return result
        loss = real.plain(real.batch)


def as_loader(batches: Batches) -> Callable[[int], Any]:
    """Return `load(step)`, with step from 1, over a callable, a sequence or an iterable of batches."""
    if callable(batches):
        return batches
    if isinstance(batches, Sequence) and batches:
        return lambda step: batches[(step - 1) % len(batches)]
    endless = _restarted(batches)
    return lambda _: next(endless)


def _restarted(batches: Iterable[Any]) -> Iterator[Any]:
    while True:
        drawn = False
        for batch in batches:
            drawn = True
            yield batch
        if not drawn:
            raise UserError("the batches have run out: pass a callable, a sequence, or a re-iterable loader")
