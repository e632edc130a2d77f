"""What decides a workload's runs, seen on the recipe as it is built, wherever its settings come from."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from math import isclose
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from hybrid_sweep.errors import named
from hybrid_sweep.measure.digest import Digest
from hybrid_sweep.measure.reference import held_out, start
from hybrid_sweep.trainer.random_state import random_state, set_random_state
from hybrid_sweep.trainer.train_step import TrainStep
from hybrid_sweep.workload import Workload, metric_of, quality_of

NEAR = 1e-3
"""Share by which a result may differ where its last bits may: off the CPU, or on another platform."""
MOST_SCHEDULE_STEPS = 20_000
"""A schedule of more steps is looked at as far as this."""
UNTOLD = ("params", "lr", "initial_lr")
"""Keys of a group that are no settings, or are told as the learning rate."""
NAMES = ("the model", "trained parameters", "parameter groups")
NUMBERS = ("initial weights", "batches")
SCHEDULE = "settings along the schedule"
FIRST_STEPS = "what two steps make of the weights"
TORCHS_OWN = {*vars(nn.Module()), *vars(SGD([torch.zeros(1, requires_grad=True)])), "optimizer", "verbose"}
"""Attributes of modules, optimizers and schedules that hold no setting of the user's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What decides a run beside its seed and length, as plain data.

    Attributes:
        settings: by name, what can be told in words: optimizers, their settings, learning rates.
        parts: by name, hashes: the model's structure, initial weights, which parameters are trained and in
            which group, what else module, optimizer and schedule hold, batches, the weights after two steps.
        results: by name, losses of the first steps and held-out results of the fresh model.
        exact: whether the same recipe gives the same results to the last bit, as it does on a CPU.
        unknown: types in a batch whose content cannot be seen.
    """

    settings: dict[str, str]
    parts: dict[str, str]
    results: dict[str, list[float]]
    exact: bool
    unknown: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)

    def key(self) -> dict[str, Any]:
        """Return what the key of a run takes of it: all but the last bits that may differ."""
        results = {name: [_rounded(value, self.exact) for value in of] for name, of in self.results.items()}
        return {**self.to_dict(), "results": results}

    def changes(self, before: Mapping[str, Any], *, same_platform: bool) -> list[str]:
        """Return in words what is different from the recipe that `to_dict` has returned once.

        Args:
            before: that of then.
            same_platform: whether it was built by the same torch on the same kind of device.
        """
        now, then = self.settings, before["settings"]
        told = [
            f"{name} ({then.get(name, 'none')}, now {now.get(name, 'none')})"
            for name in sorted({*now, *then})
            if now.get(name) != then.get(name)
        ]
        compared = [*(NAMES if same_platform else ()), *(NUMBERS if same_platform and self.exact else ())]
        told += [name for name in compared if before["parts"].get(name) != self.parts[name]]
        if told:
            return told
        for name in (SCHEDULE, FIRST_STEPS) if same_platform and self.exact else ():
            if before["parts"].get(name) != self.parts[name]:
                return [name]
        return [
            name
            for name, values in self.results.items()
            if not _alike(values, before["results"].get(name, []), self.exact and same_platform)
        ]


def recipe_of(workload: Workload) -> Recipe:
    """Build a workload's recipe twice, and look at it: seconds, also where a model is large.

    Two plain steps are taken on a model of no use, and a schedule of no use is stepped to its end. The
    global random numbers are left as they were.
    """
    before = random_state()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a schedule is stepped without its optimizer
            return _recipe(workload)
    finally:
        set_random_state(before)


def _recipe(workload: Workload) -> Recipe:
    plain, twin = start(workload, 0), start(workload, 0)
    exact = all(p.device.type == "cpu" for p in plain.model.parameters())
    batches = Digest(draws=True)
    at = _sampled(workload.steps)
    parts = {
        "the model": Digest().of(_structure(plain.model)),
        "initial weights": Digest().of([*_named(plain.model.named_parameters()), *_buffers(plain.model)]),
        "trained parameters": Digest().of([(n, p.requires_grad) for n, p in plain.model.named_parameters()]),
        "parameter groups": Digest().of(_members(plain)),
        "attributes": Digest().of(_attributes(plain, twin)),
        "batches": batches.of([workload.batch(seed, step) for seed in (0, 1) for step in at]),
    }
    results = {"held-out results": _held_out(workload, plain.model)}
    settings, parts[SCHEDULE] = _settings(workload, plain)
    losses = [twin(workload.batch(0, min(step, workload.steps))) for step in (1, 2)]
    if exact:
        parts[FIRST_STEPS] = Digest().of([_named(twin.model.named_parameters()), losses])
    losses += [workload.loss(twin.model, workload.batch(0, step)).detach() for step in at]
    results["losses of the first steps"] = [float(loss) for loss in losses]
    unknown = [] if hasattr(workload, "data_checksum") else sorted(batches.unknown)
    return Recipe(settings=settings, parts=parts, results=results, exact=exact, unknown=unknown)


def _sampled(steps: int) -> list[int]:
    return sorted({1, min(2, steps), steps // 2 + 1, steps})


def _structure(model: nn.Module) -> list[Any]:
    modules = [(name, type(m).__qualname__, m.extra_repr(), m.training) for name, m in model.named_modules()]
    tensors = [*model.named_parameters(), *model.named_buffers()]
    return [modules, [(name, str(t.dtype), str(getattr(t, "shape", ""))) for name, t in tensors]]


def _named(tensors: Iterable[tuple[str, Tensor]]) -> list[tuple[str, Tensor]]:
    return [(name, tensor.detach()) for name, tensor in tensors]


def _buffers(model: nn.Module) -> list[tuple[str, Tensor]]:
    """Return also those that no state keeps."""
    return _named(model.named_buffers())


def _members(plain: TrainStep) -> list[list[str]]:
    """Return the names of each group's parameters."""
    names = {id(p): name for name, p in plain.model.named_parameters()}
    return [[names.get(id(p), "") for p in group["params"]] for group in _groups(plain.optimizer)]


def _groups(optimizer: Any) -> list[dict[str, Any]]:
    """Return the groups of it and of those that it wraps, each once."""
    groups = [group for each in _optimizers(optimizer) for group in each.param_groups]
    return list({id(group): group for group in groups}.values())


def _optimizers(optimizer: Any) -> Iterator[Any]:
    """Yield it, and those that it wraps."""
    yield optimizer
    for value in getattr(optimizer, "__dict__", {}).values():
        inside = [*value.values()] if isinstance(value, dict) else value
        for each in inside if isinstance(inside, list | tuple) else [value]:
            if hasattr(each, "param_groups") and hasattr(each, "step"):
                yield from _optimizers(each)


def _attributes(plain: TrainStep, twin: TrainStep) -> dict[str, str]:
    """Return hashes of what modules, optimizers and schedule hold beside torch's own, by its place.

    What is not the same when it is built again, such as a count of the models so far, decides nothing.
    """
    found, again = attributes_of(plain), attributes_of(twin)
    return {place: digest for place, digest in found.items() if again.get(place) == digest}


def attributes_of(plain: TrainStep) -> dict[str, str]:
    """Return hashes of what modules, optimizers and schedule hold beside torch's own, by its place."""
    owners: list[tuple[str, Any]] = list(plain.model.named_modules())
    owners += [(f"optimizer {number}", each) for number, each in enumerate(_optimizers(plain.optimizer))]
    owners += [("schedule", plain.scheduler)] if plain.scheduler is not None else []
    return {
        f"{name}.{attribute}".removeprefix("."): Digest(outlined=(nn.Module, Optimizer)).of(value)
        for name, owner in owners
        for attribute, value in getattr(owner, "__dict__", {}).items()
        if attribute not in TORCHS_OWN
    }


def _held_out(workload: Workload, model: nn.Module) -> list[float]:
    found = held_out(workload, model)
    try:
        found |= {f"test {name}": value for name, value in held_out(workload, model, "test").items()}
    except Exception as error:  # the user's code; a reader of the split is told then
        found[named(error)] = 0.0
    return [value for _, value in sorted(found.items())]


def _settings(workload: Workload, plain: TrainStep) -> tuple[dict[str, str], str]:
    """Return what can be told in words, and the hash of all groups' settings along the schedule."""
    settings = {
        "optimizer": " and ".join(type(each).__qualname__ for each in _optimizers(plain.optimizer)),
        "schedule": "none" if plain.scheduler is None else type(plain.scheduler).__qualname__,
        "steps": str(workload.steps),
        "quality": f"{quality_of(workload)} of {metric_of(workload)}",
        "max_grad_norm": str(getattr(workload, "max_grad_norm", None)),
    }
    groups = _groups(plain.optimizer)
    for number, group in enumerate(groups):
        of = f" of group {number}" if len(groups) > 1 else ""
        settings |= {f"{name}{of}": _told(group[name]) for name in group if name not in UNTOLD}
    along: list[Any] = []
    rates: list[list[str]] = [[] for _ in groups]
    for step in range(1, min(workload.steps, MOST_SCHEDULE_STEPS) + 1):
        if step in _along(workload.steps):
            along.append([{k: v for k, v in group.items() if k != "params"} for group in groups])
            along[-1] = Digest().of(along[-1])
            for told, group in zip(rates, groups, strict=True):
                told.append(_told(group.get("lr")))
        if step == workload.steps or plain.scheduler is None:
            break
        try:
            plain.skip(1)
        except Exception as error:  # it is shorter than the run
            along.append(named(error))
            break
    for number, told in enumerate(rates):
        of = f" of group {number}" if len(rates) > 1 else ""
        settings[f"learning rate{of}"] = _shortened(list(dict.fromkeys(told)))
    return settings, Digest().of(along)


def _along(steps: int) -> set[int]:
    """Return the steps at which learning rates are looked at."""
    return {1, 2, 3, 10, 100, 1000, 10_000, *(max(round(share * steps / 8), 1) for share in range(9))}


def _shortened(rates: list[str]) -> str:
    return ", ".join(rates) if len(rates) <= 3 else f"{rates[0]}, {rates[1]}, ... {rates[-1]}"


def _told(value: Any) -> str:
    value = value.item() if isinstance(value, Tensor) and value.numel() == 1 else value
    if isinstance(value, float):
        return f"{value:.6g}"
    plain = value is None or isinstance(value, bool | int | float | str | tuple | list)
    return " ".join(repr(value).split())[:60] if plain else Digest().of(value)[:12]


def _rounded(value: float, exact: bool) -> str:
    return repr(value) if exact else f"{value:.4g}"


def _alike(one: list[float], other: list[float], exact: bool) -> bool:
    return len(one) == len(other) and all(
        json.dumps(a) == json.dumps(b) or (not exact and isclose(a, b, rel_tol=NEAR, abs_tol=1e-9))
        for a, b in zip(one, other, strict=True)
    )
