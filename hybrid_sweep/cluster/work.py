"""What runs on the workers: building a workload on its device, and the preparations of a sweep."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache, partial
from itertools import product
from math import log, sqrt
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import TypeAdapter

from hybrid_sweep.analysis.files import replacing
from hybrid_sweep.arm import ABLATION, Arm
from hybrid_sweep.axis import samples_of, values_of
from hybrid_sweep.cluster.edge_store import EdgeStore
from hybrid_sweep.cluster.order import WorkloadOrder, own_steps, uncompiled
from hybrid_sweep.measure import arm_costs
from hybrid_sweep.measure.arm_costs import step_ratios
from hybrid_sweep.measure.arm_trial import ArmTrial
from hybrid_sweep.measure.cost_cache import unit_costs_of_all
from hybrid_sweep.measure.costs import UnitCosts
from hybrid_sweep.measure.curvature import Curvature, measure_curvature
from hybrid_sweep.measure.packing import Packing, packing
from hybrid_sweep.measure.reference import Reference, Told, reference_run, unheard
from hybrid_sweep.measure.run_cache import RunCache
from hybrid_sweep.measure.schedule import still_made_for
from hybrid_sweep.measure.sharing import SharedTrial, Store, SweepStore
from hybrid_sweep.measure.trial import Trial, Twins
from hybrid_sweep.paths import refuse_identifier
from hybrid_sweep.search.space import given
from hybrid_sweep.spec import SweepSpec
from hybrid_sweep.trainer.config import HybridConfig
from hybrid_sweep.trainer.optimizers import evaluated_weights
from hybrid_sweep.workload import Workload, quality_of

COST_SIZES = ("predictor_hidden_size", "predictor_members", "bptt_steps", "full_steps")
COST_SETTINGS = ("predictor", "gates", "calibration", *COST_SIZES)
"""Settings that change what a unit of work costs."""


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
        saves: whether a run can be saved and gone on from; else it begins from its start.
        began_with: the workload with which the sweep began, as `WorkloadOrder.began_with`.
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
    saves: bool = True
    began_with: dict[str, Any] = field(default_factory=dict)
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
        optimizer, model = trial.trainer.optimizer, trial.trainer.model
        with replacing(path) as temporary, evaluated_weights(optimizer, model):
            torch.save(model.state_dict(), temporary)

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
    """Return the name of the file that holds a trial's weights.

    Raises:
        UserError: the id could lead out of the folder.
    """
    refuse_identifier(trial_id, "the sweep")
    return f"{trial_id}_seed{int(seed)}.pt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A reference, and what is known with it.

    Attributes:
        reference: plain training with one seed.
        from_cache: whether an earlier sweep trained it.
        quality: how the workload compares with it.
        began_with: the workload, as `WorkloadOrder.began_with`.
        warning: what does not go as the sweep says, in a sentence; "" where nothing shows.
    """

    reference: Reference
    from_cache: bool
    quality: str
    began_with: dict[str, Any]
    warning: str = ""


def prepare_reference(
    order: WorkloadOrder,
    seed: int,
    steps: int | None,
    eval_every: int,
    share: bool,
    tell: Told = unheard,
) -> Prepared:
    """Run plain training with one seed, unless with `share` an earlier sweep has."""
    workload = order.build()
    runs = order.runs(workload) if share else None
    parts = {"seed": seed, "steps": steps or workload.steps, "eval_every": eval_every}
    about: dict[str, Any] = {
        "quality": quality_of(workload),
        "began_with": order.began_with(),
        "warning": still_made_for(workload, own_steps.get(repr(order), workload.steps), parts["steps"]),
    }
    if runs and (kept := runs.get("references", TypeAdapter(Reference), **parts)):
        return Prepared(reference=kept, from_cache=True, **about)
    reference = reference_run(workload, **parts, tell=tell)
    if runs:
        runs.put("references", reference, **parts)
    return Prepared(reference=reference, from_cache=False, **about)


def prepare_curvature(
    order: WorkloadOrder, seed: int, steps: int | None, share: bool, tell: Told = unheard
) -> Curvature:
    """Measure the largest η·λ along plain training with one seed, unless (`share`) an earlier sweep has.

    It trains uncompiled, for a compiled loss cannot be differentiated twice.
    """
    workload = uncompiled(order.build())
    runs = replace(order, compile="none").runs(workload) if share else None
    parts: dict[str, Any] = {"seed": seed, "steps": steps or workload.steps}
    measure = partial(measure_curvature, workload, **parts, tell=tell)
    return runs.kept("curvatures", TypeAdapter(Curvature), measure, **parts) if runs else measure()


def prepare_costs(
    order: WorkloadOrder,
    configs: Mapping[str, HybridConfig],
    steps: int | None,
    fresh: bool,
    tell: Told = unheard,
) -> dict[str, UnitCosts]:
    """Measure the unit costs of several settings, or take those that this machine has kept."""
    workload = order.build()
    runs, steps = order.runs(workload), steps or workload.steps
    return unit_costs_of_all(workload, configs, runs, steps, fresh=fresh, tell=tell)


def prepare_packing(order: WorkloadOrder, asked: int | Literal["auto"], most: int, share: float) -> Packing:
    """Decide how many trials a worker trains at once."""
    return packing(order.build(), asked, most, share)


def prepare_step_ratios(
    order: WorkloadOrder,
    seed: int,
    arms: list[Arm],
    steps: int,
    fresh: bool,
    a_step: float,
    tell: Told = unheard,
) -> dict[str, float]:
    """Time a step of each kind of control against the recipe's, or take what this machine has kept."""
    workload = order.build()
    return step_ratios(
        workload, seed, arms, steps, order.runs(workload), fresh=fresh, a_step=a_step, tell=tell
    )
