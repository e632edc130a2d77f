"""What runs on the workers: building a workload on its device, and the preparations of a sweep."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from math import log, sqrt
from pathlib import Path
from typing import Any

import torch

from hybrid_sweep.cluster.prefix_store import PrefixStore
from hybrid_sweep.control import ABLATION, ControlConfig
from hybrid_sweep.measure import control_costs
from hybrid_sweep.measure.control_run import ControlRun
from hybrid_sweep.measure.costs import UnitCosts
from hybrid_sweep.measure.hybrid_run import HybridRun, Twins
from hybrid_sweep.measure.reference import Reference
from hybrid_sweep.measure.run_cache import RunCache
from hybrid_sweep.measure.shared_prefix import SharedPrefixRun, Store, SweepStore
from hybrid_sweep.measure.workload_builder import WorkloadOrder
from hybrid_sweep.paths import validate_identifier
from hybrid_sweep.search.space import given
from hybrid_sweep.spec.axes import samples_of, values_of
from hybrid_sweep.spec.sweep import SweepSpec
from hybrid_sweep.store.atomic import replacing
from hybrid_sweep.trainer.config import HybridConfig
from hybrid_sweep.trainer.optimizers import evaluated_weights
from hybrid_sweep.workload import Workload

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
    ) -> HybridRun | SharedPrefixRun | ControlRun:
        """Start one trial of the arm that `point` names, of the hybrid where it names none.

        With `run_to_completion` it is one that can go on from a checkpoint.
        """
        arm = point.get("arm") or ""
        if arm and arm != ABLATION:
            values = dict(point["config"])
            steps, settings = values.pop("steps"), ControlConfig(**values)
            ratio = self.step_ratios.get(control_costs.cost_class(settings), 1.0)
            return ControlRun(workload, settings, steps, self.references[point["seed"]], ratio, runs)
        config, seed = HybridConfig(**point["config"]), point["seed"]
        costs, own_twins = self._costs_of(config), twins if self.controls and not arm else None

        def make() -> HybridRun:
            reference, packed = self.references[seed], self.pack > 1
            return HybridRun(
                workload, config, reference, costs, own_twins, report_every=self.report_every, packed=packed
            )

        shared = self.share and self.sweep_id and not (alone or arm or self.models)
        if not shared or config.correction_schedule != "fixed":
            return make()
        return SharedPrefixRun(
            make,
            config,
            seed,
            self.tried,
            open_ended=self.open_ended,
            store=_store(self.sweep_id, self.edges, runs),
        )

    def keep_model(self, point: dict[str, Any], trial: HybridRun | SharedPrefixRun | ControlRun) -> None:
        """Save the trained weights of a point where the sweep keeps models."""
        if self.models is None or not isinstance(trial, HybridRun) or point.get("arm"):
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
    return PrefixStore(disk, edges, runs.key(sweep_id=sweep_id)) if edges and runs else disk


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
    validate_identifier(trial_id, "the sweep")
    return f"{trial_id}_seed{int(seed)}.pt"
