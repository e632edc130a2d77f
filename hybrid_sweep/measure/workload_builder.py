"""WorkloadOrder: how a worker builds a workload, and what it knows of the one that it has built."""

from __future__ import annotations

import gc
import inspect
import platform
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import torch

from hybrid_sweep.credentials import public
from hybrid_sweep.errors import UserError
from hybrid_sweep.measure.compiled import CompiledWorkload, compiled
from hybrid_sweep.measure.fingerprint import Fingerprint, code_of, platform_of
from hybrid_sweep.measure.recipe_key import Recipe, recipe_of
from hybrid_sweep.measure.reference import hybrid_of, start
from hybrid_sweep.measure.run_cache import RunCache
from hybrid_sweep.spec.sweep import SweepSpec
from hybrid_sweep.trainer.config import HybridConfig
from hybrid_sweep.trainer.records import TrainingDiverged
from hybrid_sweep.user_code import whole_keywords
from hybrid_sweep.workload import Workload, find_workload, load_workload, validate_unchanged

Device = Literal["cpu", "cuda"]

_built: dict[tuple[str, type], Workload] = {}
"""What this process has built last: preparations and trials of a sweep take the same."""
_recipes: dict[int, tuple[Workload, Recipe]] = {}
"""Recipes of the workloads in `_built`, by address."""
own_steps: dict[str, int] = {}
"""Steps of the newest workload of an order, before the sweep told it otherwise."""
load_seconds: dict[str, float] = {}
"""How long the newest workload of an order, by its `repr`, took to build in this process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadOrder:
    """How a worker builds the workload.

    Attributes:
        name: import string.
        keywords: of its class.
        device: where it trains.
        compile: how its loss is compiled.
        steps: logical steps of a run, where the sweep names them; the workload is told.
        max_grad_norm: to which gradients are clipped, where the sweep names one; the workload is told.
        metric: what is compared, where the sweep names it; the workload is told.
        mode: whether a larger or a smaller one is better; the same.
    """

    name: str
    keywords: dict[str, Any]
    device: Device
    compile: str = "none"
    steps: int | None = None
    max_grad_norm: float | None = None
    metric: str | None = None
    mode: Literal["min", "max"] | None = None

    @classmethod
    def from_spec(cls, spec: SweepSpec, device: Device, name: str | None = None) -> WorkloadOrder:
        """Return that of a sweep; `name` is its workload's there, where it is another one."""
        return cls(
            name=name or spec.workload.name,
            keywords=whole_keywords(spec.workload.keywords),
            device=device,
            compile=spec.compile,
            steps=spec.steps,
            max_grad_norm=spec.max_grad_norm,
            metric=spec.metric,
            mode=spec.mode,
        )

    def build(self) -> Workload:
        """Return the workload of this process, built and warmed up when it is first asked for.

        On a CPU it has one thread. `device` is passed where the class takes it.

        Raises:
            UserError: where it cannot be built; a missing import names this node.
        """
        if self.device == "cpu":
            torch.set_num_threads(1)
        _make_first_optimizer()
        try:
            made_by = find_workload(self.name, **self.keywords)  # another class where a file was edited
            if (found := _built.get((repr(self), made_by))) is not None:
                return found
            workload = self.load()
        except UserError as error:
            raise UserError(f"{error} (on node {platform.node()})") from None
        warm_up(workload)
        if self.compile != "none":
            workload = compiled(workload, self.compile, warm_up)
        _built.clear()
        _recipes.clear()
        _built[repr(self), made_by] = workload
        return workload

    def load(self) -> Workload:
        """Return a workload of its own, neither warmed up nor compiled.

        Raises:
            UserError: where it cannot be built.
        """
        takes = inspect.signature(find_workload(self.name, **self.keywords)).parameters
        told = {"device": self.device, "steps": self.steps}
        named = {k: v for k, v in told.items() if v is not None and k in takes and k not in self.keywords}
        began = time.perf_counter()
        workload = load_workload(self.name, **self.keywords, **named)
        load_seconds[repr(self)] = time.perf_counter() - began
        own_steps[repr(self)] = workload.steps
        self._tell(workload, "steps", self.steps)
        self._tell(workload, "max_grad_norm", self.max_grad_norm)
        self._tell(workload, "metric", self.metric)
        self._tell(workload, "mode", self.mode)
        return workload

    def _tell(self, workload: Workload, name: str, value: float | str | None) -> None:
        """Have the workload know what the sweep says of it."""
        if value is None or getattr(workload, name, None) == value:
            return
        try:
            setattr(workload, name, value)
        except AttributeError as error:
            raise UserError(
                f"{name}={value} of the sweep cannot be set on workload {self.name} ({error}): give it an "
                f"attribute {name} that can be set, or take {name} out of the sweep"
            ) from None

    def runs(self, workload: Workload) -> RunCache:
        """Return what is kept of the runs of `workload`, which `build` has returned."""
        keywords = {**public(self.keywords), "device": self.device, "torch.compile": self.compile}
        build = find_workload(self.name, **self.keywords)
        return RunCache(Fingerprint(uncompiled(workload), keywords, build, self.recipe(workload)))

    def recipe(self, workload: Workload) -> Recipe:
        """Return what decides the runs of `workload`, which `build` has returned: seconds, once a process."""
        plain = uncompiled(workload)
        if id(plain) not in _recipes:
            _recipes[id(plain)] = plain, recipe_of(plain)
        return _recipes[id(plain)][1]

    def code(self) -> dict[str, str]:
        """Return the digest of each file that the workload is made of, as `content.code_of`."""
        return code_of(type(uncompiled(self.build())), find_workload(self.name, **self.keywords))

    def began_with(self) -> dict[str, Any]:
        """Return what `validate_same_workload` takes: code, recipe as built, and platform."""
        recipe = self.recipe(self.build())
        return {
            "code": self.code(),
            "recipe": recipe.to_dict(),
            "platform": platform_of(on_gpu=not recipe.exact),
        }

    def validate_unchanged(self, before: Mapping[str, Any]) -> None:
        """Refuse files that are not those with which a sweep began, before one is imported.

        Args:
            before: as `validate_same_workload`.

        Raises:
            UserError: with those files.
        """
        try:
            validate_unchanged(self.name, before.get("code"))
        except UserError as error:
            raise UserError(f"{error} (on node {platform.node()})") from None

    def validate_same_workload(self, before: Mapping[str, Any]) -> None:
        """Refuse a workload that is not the one with which a sweep began.

        Args:
            before: what `began_with` returned then; {} of a sweep that has kept nothing.

        Raises:
            UserError: with the files or the parts of the recipe that have changed.
        """
        now, code = self.code(), before.get("code") or {}
        files = (name.partition(" ")[2] for name, digest in code.items() if now.get(name, digest) != digest)
        changed = sorted(filter(None, files))  # no name: code that is in no file
        if not changed and before.get("recipe"):
            recipe = self.recipe(self.build())
            same = before["platform"] == platform_of(on_gpu=not recipe.exact)
            changed = recipe.changes(before["recipe"], same_platform=same)
        if changed:
            raise UserError(
                f"{', '.join(changed)} changed since the sweep began, whose reference runs hold for what was "
                f"there before (on node {platform.node()}): put that back, or begin a new sweep"
            )


@cache
def _make_first_optimizer() -> None:
    """Have torch import its compiler, as its first optimizer does; the garbage collector looks away."""
    enabled = gc.isenabled()
    gc.disable()
    torch.optim.SGD([torch.zeros(1, requires_grad=True)])
    if enabled:
        gc.enable()


def uncompiled(workload: Workload) -> Workload:
    return workload.workload if isinstance(workload, CompiledWorkload) else workload


def warm_up(workload: Workload) -> None:
    """Load the data and run a few steps on a model of no use, so that no trial pays for a process's start."""
    config = HybridConfig(warmup_steps=8, full_steps=4, max_predict_steps=2, confidence_threshold=0.001)
    plain = start(workload, 0)
    plain.scheduler = None  # one of a fixed length may be short
    trainer = hybrid_of(plain, config)
    with suppress(TrainingDiverged):  # the reference will say so better
        trainer.run(lambda step: workload.batch(0, step), min(30, workload.steps))
    trainer.plain.look(workload.batch(0, 1))  # as in Correct, to which a short or diverged run does not come
    workload.evaluate(plain.model, "val")
