"""FusedStep: the real steps of many models at once, over stacked weights and stacked batches."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.optim import SGD, Adagrad, Adam, Adamax, AdamW, NAdam, Optimizer, RAdam, RMSprop

from hybrid_sweep.errors import UserError, named
from hybrid_sweep.trainer.layer_groups import LayerGroups
from hybrid_sweep.trainer.parted import Parted
from hybrid_sweep.trainer.train_step import PendingStep, TrainStep

PER_PARAMETER = (SGD, Adam, AdamW, RMSprop, Adagrad, Adamax, NAdam, RAdam)
"""Optimizers that treat each parameter by itself, so that one of them can step those of many models."""
Taken = dict[TrainStep, Tensor | float | Exception]
"""The loss of each step that was taken, or what was raised there."""


class Unfusable(UserError):
    """What cannot be done for many models at once."""


@dataclass(slots=True, eq=False)
class _Member:
    """A model whose weights and buffers are row `row`; `gradients` are views of that row of gradients."""

    plain: TrainStep
    groups: LayerGroups
    loss: _Loss
    row: int
    gradients: list[Tensor]

    def move(self, weights: Tensor) -> None:
        """Let the weights live in another vector, unless they have been replaced and live elsewhere."""
        if self.groups.in_place():
            self.groups.move(weights)


class _Rows:
    """What `size` models are made of: a row each of weights, of gradients and of everything untrained."""

    def __init__(self, size: int, like: LayerGroups, loss: _Loss) -> None:
        self.weights = like.vector.new_zeros(size, len(like.vector))
        self.gradients = torch.zeros_like(self.weights)
        self.untrained = {name: value.new_zeros(size, *value.shape) for name, value in loss.untrained.items()}

    def place(self, member: _Member, row: int) -> None:
        """Move a model into a row."""
        member.move(self.weights[row])
        member.row, member.gradients = row, member.groups.views(self.gradients[row])
        for name, value in member.loss.untrained.items():
            self.untrained[name][row].copy_(value)
            value.data = self.untrained[name][row]

    def free(self, member: _Member) -> None:
        """Give a model memory of its own again."""
        member.move(torch.empty_like(member.groups.vector))
        for name, value in member.loss.untrained.items():
            if value.untyped_storage().data_ptr() == self.untrained[name].untyped_storage().data_ptr():
                value.data = value.clone()


class FusedStep:
    """Takes one real step of each of up to `size` models of one architecture, loss and optimizer.

    Their weights are rows of one tensor. The loss is mapped over stacked weights and batches with
    `torch.func.vmap` and differentiated once; one optimizer step moves all members whose settings agree. A
    member whose batch has a shape of its own goes alone, and all of them do where the fused step fails.

    Beyond what `vmap` refuses, a forward pass must draw no random numbers: `measure.packing` looks for that
    beforehand.

    Args:
        size: the most members at a time.

    Attributes:
        refused: why nothing is fused any more; "" while it is.
        steps: fused steps so far.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.refused = ""
        self.steps = 0
        self._members: dict[TrainStep, _Member] = {}
        self._rows: _Rows | None = None
        self._optimizers = _JointOptimizer()

    def leave(self, plain: TrainStep) -> None:
        """Let a member go, its weights in memory of their own."""
        if (gone := self._members.pop(plain, None)) is None or self._rows is None:
            return
        self._rows.free(gone)
        last = max(self._members.values(), key=lambda member: member.row, default=gone)
        if last.row > gone.row:  # the rows in use stay next to each other
            self._rows.place(last, gone.row)

    def __call__(self, steps: Sequence[PendingStep]) -> Taken:
        """Take these steps."""
        alike: dict[Any, list[PendingStep]] = defaultdict(list)
        for step in steps:
            alike[step.plain.loss_fn, _shapes(step.batch)].append(step)
        taken: Taken = {}
        for those in alike.values():
            taken.update(self._take(those))
        return taken

    def _take(self, steps: list[PendingStep]) -> Taken:
        if len(steps) == 1 or self.refused:
            return _alone(steps)
        try:
            pairs = [(self._member(step), step.batch) for step in steps]
            pairs.sort(key=lambda pair: pair[0].row)
            members = [member for member, _ in pairs]
            losses = self._differentiate(members, [batch for _, batch in pairs], self._rows)
        except Exception as error:
            why = named(error)
        else:
            self.steps += 1
            return self._optimizers.step([member.plain for member in members], losses)
        taken = _alone(steps)  # down here the error has let go of the memory that the attempt took
        if not any(isinstance(loss, Exception) for loss in taken.values()):
            self.refused = why
        return taken

    def _member(self, step: PendingStep) -> _Member:
        """Return whose step it is, moved into a row where it is new."""
        if (member := self._members.get(step.plain)) is not None:
            if step.groups not in (None, member.groups):
                raise Unfusable("parameters were unfrozen, added or replaced while it trained")
            return member
        if len(self._members) == self.size:
            raise Unfusable(f"a pack of {self.size} has no room for another model")
        groups, loss = step.groups or LayerGroups.from_model(step.plain.model), _Loss(step.plain)
        if isinstance(groups.vector, Parted):
            raise Unfusable("its parameters are of several types, or on several devices")
        rows = self._rows = self._rows or _Rows(self.size, groups, loss)
        member = _Member(step.plain, groups, loss, 0, [])
        rows.place(member, len(self._members))
        self._members[step.plain] = member
        return member

    def _differentiate(self, members: list[_Member], batches: list[Any], rows: _Rows | None) -> Tensor:
        """Put the gradient of each member on its batch into its parameters; return the losses [k]."""
        assert rows is not None
        places, first = [member.row for member in members], members[0]
        neighbours = places[-1] - places[0] + 1 == len(places)
        index: Any = slice(places[0], places[-1] + 1) if neighbours else places  # views, or copies
        gradients = rows.gradients[index]
        stacked = [view.detach().requires_grad_() for view in first.groups.views(rows.weights[index])]
        untrained = {name: value[index] for name, value in rows.untrained.items()}
        shared = all(batch is batches[0] for batch in batches)
        batch = batches[0] if shared else _stacked(batches)
        with torch.enable_grad():
            of_each = vmap(first.loss.of, in_dims=(0, 0, None if shared else 0))
            losses: Tensor = of_each(dict(zip(first.loss.trained, stacked, strict=True)), untrained, batch)
            if losses.dim() != 1:
                raise Unfusable(f"the loss has shape {tuple(losses.shape[1:])}, and is to be a scalar")
            found = torch.autograd.grad(losses.sum(), stacked, allow_unused=True)
        into = first.groups.views(gradients)
        used = [i for i, gradient in enumerate(found) if gradient is not None]
        torch._foreach_copy_([into[i] for i in used], [found[i] for i in used])
        if not neighbours:
            rows.gradients[index] = gradients
            for name, value in untrained.items():
                rows.untrained[name][index] = value
        for member in members:
            for p, gradient, new in zip(member.plain.parameters, member.gradients, found, strict=True):
                p.grad = None if new is None else gradient
        return losses.detach()


class _Loss(nn.Module):
    """The loss as a function of the weights of the model that it is computed with.

    Attributes:
        trained: names of what is trained, in the order of `LayerGroups`.
        untrained: frozen parameters and buffers, by name.
    """

    def __init__(self, plain: TrainStep) -> None:
        super().__init__()
        self.model = plain.model
        self._of_model = plain.loss_fn
        named = dict(self.named_parameters())
        self.trained = [name for name, p in named.items() if p.requires_grad]
        frozen: dict[str, Tensor] = {name: p for name, p in named.items() if not p.requires_grad}
        self.untrained = {**frozen, **dict(self.named_buffers())}

    def forward(self, batch: Any) -> Tensor:
        return self._of_model(self.model, batch)

    def of(self, trained: dict[str, Tensor], untrained: dict[str, Tensor], batch: Any) -> Tensor:
        """Return the loss on `batch` with these weights."""
        loss: Tensor = functional_call(self, (trained, untrained), (batch,))
        return loss


class _JointOptimizer:
    """Steps many models, whose gradients are there, with as few optimizer steps as their settings allow."""

    def __init__(self) -> None:
        self._plains: list[TrainStep] = []
        self._settings: Any = None
        self._optimizer: Optimizer | None = None

    def step(self, plains: list[TrainStep], losses: Tensor) -> Taken:
        """Step each of them; `losses` [k] are those of the gradients."""
        alike = _alike(plains)
        for plain in alike:
            plain.count(losses)
            plain.steps += 1
        if alike:
            self._step_alike(alike)
        failed: Taken = {}
        for plain, loss in zip(plains, losses.unbind(), strict=True):
            if plain not in alike:
                try:
                    _take_once(plain, loss)
                except Exception as error:
                    failed[plain] = error
        return {**dict(zip(plains, losses.unbind(), strict=True)), **failed}

    def _step_alike(self, plains: list[TrainStep]) -> None:
        """Make one step of an optimizer that has their parameters, and works on their own states."""
        settings = _settings(plains[0])
        if self._optimizer is None or self._plains != plains or self._settings != settings:
            groups = zip(*(plain.optimizer.param_groups for plain in plains), strict=True)
            joined = [{**same[0], "params": [p for g in same for p in g["params"]]} for same in groups]
            make: Any = type(plains[0].optimizer)
            self._optimizer, self._plains, self._settings = make(joined), plains, settings
        owned: list[Any] = [plain.optimizer for plain in plains]
        states = [optimizer.state for optimizer in owned]
        self._optimizer.state = defaultdict(dict, {p: own for state in states for p, own in state.items()})
        known = len(self._optimizer.state)
        self._optimizer.step()
        if len(self._optimizer.state) > known:
            for optimizer in owned:
                for group in optimizer.param_groups:
                    for p in group["params"]:
                        if p in self._optimizer.state:
                            optimizer.state[p] = self._optimizer.state[p]


def _alike(plains: list[TrainStep]) -> list[TrainStep]:
    """Return those that one optimizer step can move: with the settings of the first, and no more to it."""
    settings = _settings(plains[0])
    simple = [plain for plain in plains if plain.scheduler is None and plain.rate_factor is None]
    alike = [plain for plain in simple if _settings(plain) == settings]
    return alike if settings[0] in PER_PARAMETER and len(alike) > 1 else []


def _settings(plain: TrainStep) -> tuple[type, list[dict[str, Any]]]:
    groups = plain.optimizer.param_groups
    return type(plain.optimizer), [{k: v for k, v in group.items() if k != "params"} for group in groups]


def _take_once(plain: TrainStep, loss: Tensor) -> None:
    before = plain.backward_calls
    plain.take(loss)
    if plain.backward_calls != before + 1:
        raise Unfusable(f"{type(plain.optimizer).__name__} evaluates its loss more than once a step")


def _alone(steps: list[PendingStep]) -> Taken:
    taken: Taken = {}
    for step in steps:
        try:
            taken[step.plain] = step.plain(step.batch)
        except Exception as error:
            taken[step.plain] = error
    return taken


def _shapes(batch: Any) -> Any:
    """Return what batches that can be stacked have in common."""
    if isinstance(batch, Tensor):
        return batch.shape, batch.dtype, batch.device
    if isinstance(batch, Mapping):
        return type(batch), tuple((name, _shapes(value)) for name, value in batch.items())
    if isinstance(batch, tuple | list):
        return type(batch), tuple(_shapes(value) for value in batch)
    return type(batch), id(batch)


def _stacked(batches: Sequence[Any]) -> Any:
    """Stack the tensors in batches of one shape.

    Raises:
        Unfusable: there is something else in them.
    """
    first = batches[0]
    if isinstance(first, Tensor):
        return torch.stack(list(batches))
    if type(first) is dict:
        return {name: _stacked([batch[name] for batch in batches]) for name in first}
    if type(first) in (tuple, list):
        return type(first)(_stacked(parts) for parts in zip(*batches, strict=True))
    if isinstance(first, tuple) and hasattr(first, "_fields"):
        return type(first)(*(_stacked(parts) for parts in zip(*batches, strict=True)))
    raise Unfusable(f"a batch holds a {type(first).__name__}, and only tensors can be stacked")
