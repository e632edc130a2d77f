"""What runs on the workers: building a workload on its device, and the preparations of a sweep."""

from __future__ import annotations

import gc
import inspect
import json
import platform
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import product
from math import log, sqrt
from pathlib import Path
from typing import Any, Literal

import torch

from hybrid_sweep.arm import ABLATION, Arm
from hybrid_sweep.axis import samples_of, values_of
from hybrid_sweep.cluster.edge_store import EdgeStore
from hybrid_sweep.errors import UserError
from hybrid_sweep.measure import arm_costs
from hybrid_sweep.measure.arm_costs import step_ratios
from hybrid_sweep.measure.arm_trial import ArmTrial
from hybrid_sweep.measure.compiled import CompiledWorkload, compiled
from hybrid_sweep.measure.content import Content, code_of
from hybrid_sweep.measure.cost_cache import unit_costs
from hybrid_sweep.measure.costs import UnitCosts
from hybrid_sweep.measure.curvature import Curvature, measure_curvature
from hybrid_sweep.measure.packing import Packing, packing
from hybrid_sweep.measure.reference import Reference, hybrid_of, reference_run, start
from hybrid_sweep.measure.run_cache import RunCache
from hybrid_sweep.measure.schedule import still_made_for
from hybrid_sweep.measure.sharing import SharedTrial, Store, SweepStore
from hybrid_sweep.measure.trial import Trial, Twins
from hybrid_sweep.measure.workload_check import Finding, refuse, repeats
from hybrid_sweep.search.space import given
from hybrid_sweep.spec import SweepSpec
from hybrid_sweep.trainer.config import HybridConfig
from hybrid_sweep.trainer.records import TrainingDiverged
from hybrid_sweep.workload import Workload, find_workload, load_workload, quality_of

Device = Literal["cpu", "cuda"]
COST_SIZES = ("predictor_hidden_size", "predictor_members", "bptt_steps", "full_steps")
COST_SETTINGS = ("predictor", "gates", "calibration", *COST_SIZES)
"""Settings that change what a unit of work costs."""


_built: dict[tuple[str, type], Workload] = {}
"""What this process has built last: preparations and trials of a sweep take the same."""
BUILT_AGAIN_SECONDS = 5.0
"""A workload that takes longer to build is not built a second time to see whether it is the same."""
_own_steps: dict[str, int] = {}
"""Steps of the newest workload of an order, before the sweep told it otherwise."""
_load_seconds: dict[str, float] = {}
"""How long the newest workload of an order took to build in this process."""


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
    """

    name: str
    keywords: dict[str, Any]
    device: Device
    compile: str = "none"
    steps: int | None = None
    max_grad_norm: float | None = None

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
        _load_seconds[repr(self)] = time.perf_counter() - began
        _own_steps[repr(self)] = workload.steps
        self._tell(workload, "steps", self.steps)
        self._tell(workload, "max_grad_norm", self.max_grad_norm)
        return workload

    def _tell(self, workload: Workload, name: str, value: float | None) -> None:
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
        keywords = {
            **self.keywords,
            "device": self.device,
            "torch.compile": self.compile,
            "max_grad_norm": getattr(workload, "max_grad_norm", None),
        }
        return RunCache(Content(_uncompiled(workload), keywords, find_workload(self.name, **self.keywords)))

    def code(self) -> dict[str, str]:
        """Return the digest of each file that the workload is made of, as `content.code_of`."""
        return code_of(type(_uncompiled(self.build())), find_workload(self.name, **self.keywords))

    def refuse_other_code(self, code: Mapping[str, str]) -> None:
        """Refuse a workload that is not the one with which a sweep began.

        Args:
            code: what `code` returned then.

        Raises:
            UserError: with the files that have changed.
        """
        now = self.code()
        files = (name.partition(" ")[2] for name, digest in code.items() if now.get(name, digest) != digest)
        if changed := ", ".join(sorted(filter(None, files))):  # no name: code that is in no file
            raise UserError(
                f"{changed} changed since the sweep began, whose reference runs hold for what was there "
                f"before (on node {platform.node()}): put that back, or begin a new sweep"
            )


@cache
def _make_first_optimizer() -> None:
    """Have torch import its compiler, as its first optimizer does; the garbage collector looks away."""
    enabled = gc.isenabled()
    gc.disable()
    torch.optim.SGD([torch.zeros(1, requires_grad=True)])
    if enabled:
        gc.enable()


def _uncompiled(workload: Workload) -> Workload:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What all trials of a sweep share, put once into Ray's object store.

    Attributes:
        order: how to build the workload.
        references: plain training by seed.
        costs: unit costs by `cost_class`.
        step_ratios: what a step of each kind of control costs in plain steps; one that is missing costs one.
        controls: whether each trial is compared with its twins.
        checkpoint_seconds: wall clock between the checkpoints of a trial.
        gpu_memory_bytes: what must be free on a shared GPU before a trial starts; None looks at nothing.
        models: where trained weights are kept; None keeps none.
        share: whether what others have trained is taken from the cache: controls and twins of any sweep,
            and what trials of this one have in common.
        sweep_id: of the sweep; without one its trials share nothing.
        tried: the settings that the sweep will try, as far as it is known.
        open_ended: whether it will choose others as it goes.
        pack: trials that a worker trains at once.
        report_seconds: wall clock for which a worker goes on before it reports, for a cycle at least; with 0
            each cycle is reported by itself, as early stopping needs it.
        report_every: logical steps between the reports of a trial, as in the sweep file.
        code: of the workload with which the sweep began, as `WorkloadOrder.code`.
        edges: the actor by which nodes find each other's, an `edge_store.Directory`; None on a single node.
    """

    order: WorkloadOrder
    references: dict[int, Reference]
    costs: dict[str, UnitCosts]
    step_ratios: dict[str, float] = field(default_factory=dict)
    controls: bool
    checkpoint_seconds: float | None = None
    gpu_memory_bytes: int | None = None
    models: Path | None = None
    share: bool = True
    sweep_id: str = ""
    tried: list[HybridConfig] = field(default_factory=list)
    open_ended: bool = False
    pack: int = 1
    report_seconds: float = 0.0
    report_every: int = 1
    code: dict[str, str] = field(default_factory=dict)
    edges: Any = None

    def runs(self, workload: Workload) -> RunCache | None:
        """Return what is kept of earlier runs, None where nothing is shared."""
        return self.order.runs(workload) if self.share else None

    def trial(
        self,
        point: dict[str, Any],
        workload: Workload,
        twins: Twins,
        runs: RunCache | None = None,
        *,
        alone: bool = False,
    ) -> Trial | SharedTrial | ArmTrial:
        """Start one trial of the arm that `point` names, of the hybrid where it names none.

        With `alone` it is one that can go on from a checkpoint.
        """
        arm = point.get("arm") or ""
        if arm and arm != ABLATION:
            values = dict(point["config"])
            steps, settings = values.pop("steps"), Arm(**values)
            ratio = self.step_ratios.get(arm_costs.cost_class(settings), 1.0)
            return ArmTrial(workload, settings, steps, self.references[point["seed"]], ratio, runs)
        config, seed = HybridConfig(**point["config"]), point["seed"]
        costs, own_twins = self._costs_of(config), twins if self.controls and not arm else None

        def make() -> Trial:
            reference, packed = self.references[seed], self.pack > 1
            return Trial(
                workload, config, reference, costs, own_twins, report_every=self.report_every, packed=packed
            )

        shared = self.share and self.sweep_id and not (alone or arm or self.models)
        if not shared or config.correction_schedule != "fixed":
            return make()
        return SharedTrial(
            make,
            config,
            seed,
            self.tried,
            open_ended=self.open_ended,
            store=_store(self.sweep_id, self.edges, runs),
        )

    def keep_model(self, point: dict[str, Any], trial: Trial | SharedTrial | ArmTrial) -> None:
        """Save the trained weights of a point where the sweep keeps models."""
        if self.models is None or not isinstance(trial, Trial) or point.get("arm"):
            return
        path = self.models / model_file(point["trial_id"], point["seed"])
        temporary = path.with_suffix(".tmp")
        torch.save(trial.trainer.model.state_dict(), temporary)
        temporary.replace(path)

    def _costs_of(self, config: HybridConfig) -> UnitCosts:
        """Return the costs of the configuration's class; within a range, of the nearest one measured."""
        own = json.loads(cost_class(config))

        def distance(key: str) -> tuple[int, float]:
            other = {**own, **json.loads(key)}
            different = sum(other[name] != own[name] for name in COST_SETTINGS if name not in COST_SIZES)
            return different, sum(abs(log(other[name] / own[name])) for name in COST_SIZES)

        return self.costs[min(self.costs, key=distance)]


@cache
def _store(sweep_id: str, edges: Any, runs: RunCache | None) -> Store:
    """Return the one of this worker: a new one would look through the whole cache at its first write."""
    disk = SweepStore(sweep_id)
    return EdgeStore(disk, edges, runs.key(sweep_id=sweep_id)) if edges and runs else disk


def cost_class(config: HybridConfig) -> str:
    """Return what configurations whose units of work cost the same have in common."""
    return json.dumps({name: getattr(config, name) for name in COST_SETTINGS})


def cost_classes(spec: SweepSpec) -> dict[str, HybridConfig]:
    """Return a configuration of each class that the sweep can meet; a range stands by its ends and middle."""
    axes = {name: _anchors(spec.space[name]) for name in COST_SETTINGS if name in spec.space}
    swept = [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]
    named = [config for _, config in given(spec)]
    configs = [HybridConfig(**{**spec.trainer, **values}) for values in swept]
    configs += [HybridConfig(**values) for values in named]
    return {cost_class(config): config for config in reversed(configs)}


def _anchors(axis: Any) -> list[Any]:
    if (values := values_of(axis)) is not None:
        return values
    low, high = samples_of(axis)
    return sorted({low, round(sqrt(low * high)), high})


def model_file(trial_id: str, seed: int) -> str:
    """Return the name of the file that holds a trial's weights."""
    return f"{trial_id}_seed{seed}.pt"


def prepare_workload(order: WorkloadOrder) -> None:
    """Build it, so that a preparation which comes later finds it."""
    order.build()


def prepare_check(order: WorkloadOrder) -> list[Finding]:
    """Look whether the workload repeats what it is asked for; return what a sweep does otherwise then.

    Raises:
        UserError: it does not.
    """
    workload = _uncompiled(order.build())
    quick = _load_seconds.get(repr(order), 0.0) <= BUILT_AGAIN_SECONDS
    found = refuse(repeats(workload, order.load if quick else None))
    return [each for each in found if each.state == "note"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A reference, and what is known with it.

    Attributes:
        reference: plain training with one seed.
        from_cache: whether an earlier sweep trained it.
        quality: how the workload compares with it.
        code: of the workload, as `WorkloadOrder.code`.
        warning: what does not go as the sweep says, in a sentence; "" where nothing shows.
    """

    reference: Reference
    from_cache: bool
    quality: str
    code: dict[str, str]
    warning: str = ""


def prepare_reference(
    order: WorkloadOrder, seed: int, steps: int | None, eval_every: int, share: bool
) -> Prepared:
    """Run plain training with one seed, unless with `share` an earlier sweep has."""
    workload = order.build()
    runs = order.runs(workload) if share else None
    parts = {"seed": seed, "steps": steps or workload.steps, "eval_every": eval_every}
    about: dict[str, Any] = {
        "quality": quality_of(workload),
        "code": order.code(),
        "warning": still_made_for(workload, _own_steps.get(repr(order), workload.steps), parts["steps"]),
    }
    if runs and (kept := runs.get("references", **parts)):
        return Prepared(reference=Reference(**kept), from_cache=True, **about)
    reference = reference_run(workload, **parts)
    if runs:
        runs.put("references", reference.to_dict(), **parts)
    return Prepared(reference=reference, from_cache=False, **about)


def prepare_curvature(order: WorkloadOrder, seed: int, steps: int | None, share: bool) -> Curvature:
    """Measure the largest η·λ along plain training with one seed, unless (`share`) an earlier sweep has.

    It trains uncompiled, for a compiled loss cannot be differentiated twice.
    """
    workload = _uncompiled(order.build())
    runs = replace(order, compile="none").runs(workload) if share else None
    parts: dict[str, Any] = {"seed": seed, "steps": steps or workload.steps}
    if runs is None:
        return measure_curvature(workload, **parts)
    kept = runs.kept("curvatures", lambda: measure_curvature(workload, **parts).to_dict(), **parts)
    return Curvature(**kept)


def prepare_costs(order: WorkloadOrder, config: HybridConfig, fresh: bool) -> UnitCosts:
    """Measure the unit costs, or take those that this machine has kept."""
    workload = order.build()
    return unit_costs(workload, config, order.runs(workload), fresh=fresh)


def prepare_packing(order: WorkloadOrder, asked: int | Literal["auto"], most: int, share: float) -> Packing:
    """Decide how many trials a worker trains at once."""
    return packing(order.build(), asked, most, share)


def prepare_step_ratios(
    order: WorkloadOrder, seed: int, arms: list[Arm], steps: int, fresh: bool
) -> dict[str, float]:
    """Time a step of each kind of control against the recipe's, or take what this machine has kept."""
    workload = order.build()
    return step_ratios(workload, seed, arms, steps, order.runs(workload), fresh=fresh)
