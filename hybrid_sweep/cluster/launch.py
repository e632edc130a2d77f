"""run_sweep and resume_sweep: a cluster, the references, warm workers, and then the driver does the rest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import ray
from ray.exceptions import RayError

from hybrid_sweep.analysis.folder import ResultsFolder
from hybrid_sweep.analysis.table import INTERRUPTED
from hybrid_sweep.arm import Arm
from hybrid_sweep.cluster.backend import RayBackend
from hybrid_sweep.cluster.connection import connected
from hybrid_sweep.cluster.gpu_memory import needed_bytes
from hybrid_sweep.cluster.manifest import environment
from hybrid_sweep.cluster.pack_runner import PackRunner
from hybrid_sweep.cluster.runner import Runner
from hybrid_sweep.cluster.work import (
    Device,
    Prepared,
    Shared,
    WorkloadOrder,
    cost_classes,
    model_file,
    prepare_costs,
    prepare_curvature,
    prepare_packing,
    prepare_reference,
    prepare_step_ratios,
)
from hybrid_sweep.driver.events import Note, SweepEnded, SweepEvent, TrialFinished
from hybrid_sweep.driver.sweep import SweepOutcome, Tell, begin, carry_on, recorded_spec, results_path
from hybrid_sweep.errors import UserError
from hybrid_sweep.measure.costs import UnitCosts
from hybrid_sweep.measure.curvature import Curvature
from hybrid_sweep.measure.packing import Packing
from hybrid_sweep.measure.reference import Reference
from hybrid_sweep.measure.sharing import SweepStore
from hybrid_sweep.search.controls import controls
from hybrid_sweep.search.mask import refuse_masked_space, wants_curvature, with_curvature
from hybrid_sweep.search.space import given, grid
from hybrid_sweep.search.storage import StorageView
from hybrid_sweep.search.warm_start import known_points
from hybrid_sweep.spec import SweepSpec
from hybrid_sweep.workload import find_workload, travelling


def run_sweep(
    spec: SweepSpec,
    out: Path | None = None,
    *,
    address: str | None = None,
    keep_models: Literal["none", "front"] = "none",
    remeasure: bool = False,
    on_event: Tell | None = None,
) -> SweepOutcome:
    """Run a sweep and write its results folder.

    Args:
        spec: what to run.
        out: a new or empty folder; None makes `results/<name>-<time>`.
        address: an existing Ray cluster; None starts a local one and ends it.
        keep_models: "front" keeps the trained weights of the front, in `models/` of the results folder,
            which on a cluster must be shared by its nodes.
        remeasure: measure the unit costs anew instead of taking those that this machine has kept.
        on_event: told of everything that happens, in the driver's thread.

    Raises:
        UserError: a workload, data or setting that cannot work, or a space whose every point is masked;
            nothing has been written then.
    """
    tell = on_event or (lambda event: None)
    path = results_path(spec, out)
    StorageView.refuse_unreachable(spec.storage)
    if not wants_curvature(spec):
        refuse_masked_space(spec)
    for earlier in spec.warm_start:
        known_points(ResultsFolder.open(earlier), spec)
    if address is None:
        find_workload(spec.workload.name, **spec.workload.keywords)  # refused now, not after Ray's start
    tell(Note("starting Ray" if address is None else f"connecting to Ray at {address}"))
    with connected(spec, address):
        place = Place.of(spec, address)
        tell(
            Note(
                f"plain training, seeds {', '.join(map(str, spec.seeds))}: what every trial is compared with"
            )
        )
        prepared, curvature = _plain_runs(spec, place)
        references = {seed: each.reference for seed, each in prepared.items()}
        if curvature:
            spec, said = with_curvature(spec, curvature.eta_lambda, curvature.why_not)
            tell(Note(said))
            refuse_masked_space(spec)
        costs = _unit_costs(spec, place, remeasure)
        steps = references[spec.seed].steps[-1]
        folder = begin(
            path,
            spec,
            steps,
            {
                **environment(place.order.device),
                "keep_models": keep_models,
                "unit_costs": next(iter(costs.values())).to_dict(),
                "control_step_ratios": _step_ratios(spec, place, steps, remeasure),
                **_packing(spec, place, tell),
                "unit_costs_by_setting": {key: value.to_dict() for key, value in costs.items()},
                **({"curvature": curvature.to_dict()} if curvature else {}),
                "references": {str(seed): r.to_dict() for seed, r in references.items()},
            },
        )
        kept = sum(each.from_cache for each in prepared.values())
        return _carry_on(folder, spec, place, _TellsWhatWasKept(tell, kept))


def resume_sweep(
    path: Path,
    *,
    changes: Mapping[str, Any] | None = None,
    address: str | None = None,
    retry_failed: bool = False,
    on_event: Tell | None = None,
) -> SweepOutcome:
    """Go on with a sweep that was interrupted, killed or is to have more trials; nothing is run twice.

    Args:
        path: its results folder.
        changes: fields of the sweep that may change between sittings: trials, concurrency, storage, ...
        address: an existing Ray cluster; None starts a local one and ends it.
        retry_failed: also run again what failed.
        on_event: told of everything that happens, in the driver's thread.

    Raises:
        UserError: the folder is no sweep's, of another version, or driven by another process.
    """
    tell = on_event or (lambda event: None)
    folder = ResultsFolder.open(path)
    spec = recorded_spec(folder, changes)
    if address is None:
        find_workload(spec.workload.name, **spec.workload.keywords)
    with folder.driven():  # what is wrong there is said before Ray is started in vain
        pass
    tell(Note("starting Ray" if address is None else f"connecting to Ray at {address}"))
    with connected(spec, address):
        place = Place.of(spec, address)
        began_on = (folder.manifest.get("hardware") or {}).get("device")
        if began_on != place.order.device:
            raise UserError(
                f"the sweep began on {began_on}, and its references and unit costs do not hold on "
                f"{place.order.device}: resume it where there is {began_on}"
            )
        return _carry_on(folder, spec, place, _TellsWhatWasKept(tell), retry_failed)


def _carry_on(
    folder: ResultsFolder, spec: SweepSpec, place: Place, tell: Tell, retry_failed: bool = False
) -> SweepOutcome:
    """Bring the workers up and let the driver work."""
    manifest = folder.manifest
    models = folder.models_path if manifest.get("keep_models") == "front" else None
    if models:
        models.mkdir(exist_ok=True)
    references = {int(seed): Reference(**r) for seed, r in manifest["references"].items()}
    whole = grid(spec) if spec.sampler == "grid" else []
    shared = Shared(
        order=place.order,
        references=references,
        costs={key: UnitCosts(**costs) for key, costs in manifest["unit_costs_by_setting"].items()},
        controls=spec.controls != "none",
        step_ratios=manifest.get("control_step_ratios") or {},
        checkpoint_seconds=spec.checkpoint_seconds,
        gpu_memory_bytes=needed_bytes(references, place.share["gpu"]),
        models=models,
        share=spec.share,
        sweep_id=manifest["sweep_id"],
        tried=[*(config for _, config in given(spec)), *(point.config for point in whole)],
        open_ended=spec.sampler != "grid",
        pack=(manifest.get("pack") or {}).get("size", 1),
    )
    made: list[RayBackend] = []

    def backend() -> RayBackend:
        runner = PackRunner if shared.pack > 1 else Runner
        slots = partial(place.slots, spec, shared.pack)
        made.append(RayBackend(runner, (ray.put(shared),), place.share, slots, shared.pack))
        return made[-1]

    def finish(folder: ResultsFolder) -> None:
        if models:
            _keep_front(folder, models)
        folder.export_all()

    try:
        return carry_on(folder, spec, backend, tell, retry_failed=retry_failed, finish=finish)
    finally:
        for each in made:
            each.close()
        SweepStore(manifest["sweep_id"]).close()


@dataclass(slots=True)
class _TellsWhatWasKept:
    """Passes events on, and before the last one says what was not trained, since an earlier sweep had."""

    tell: Tell
    references: int = 0
    controls: int = 0

    def __call__(self, event: SweepEvent) -> None:
        if isinstance(event, TrialFinished):
            self.controls += event.from_cache
        counts = {"reference": self.references, "control": self.controls}
        kept = [f"{count} {name}{'s' * (count > 1)}" for name, count in counts.items() if count]
        if isinstance(event, SweepEnded) and kept:
            self.tell(Note(f"{' and '.join(kept)} from the cache"))
        self.tell(event)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the trials of a sweep run: what a worker builds, and the share of a node that it takes."""

    order: WorkloadOrder
    share: dict[str, float]

    @classmethod
    def of(cls, spec: SweepSpec, address: str | None) -> Place:
        """Choose the device and the share.

        Raises:
            UserError: no node of the cluster has that share.
        """
        gpus = max((node.get("GPU", 0.0) for node in _nodes()), default=0.0)
        device: Device = "cuda" if gpus and spec.device != "cpu" else "cpu"
        share = {"cpu": 1.0, "gpu": spec.gpus_per_trial if device == "cuda" else 0.0}
        travel = travelling(spec.workload.name) if address else None
        name = travel[1] if travel else spec.workload.name
        place = cls(
            order=WorkloadOrder(
                name=name, keywords=spec.workload.keywords, device=device, compile=spec.compile
            ),
            share=share,
        )
        if spec.device == "cuda" and not gpus:
            raise UserError("device=cuda is not available: Ray sees no GPU; use --device cpu")
        if not place.slots(spec):
            have = ", ".join(f"{n.get('CPU', 0):g} CPU and {n.get('GPU', 0):g} GPU" for n in _nodes())
            raise UserError(
                f"a trial takes {share['cpu']:g} CPU and {share['gpu']:g} GPU, and no node has that "
                f"(nodes: {have or 'none'}): lower gpus_per_trial, or add a node"
            )
        return place

    def slots(self, spec: SweepSpec, pack: int = 1) -> int:
        """Count the trials, `pack` of them a worker, that fit on the nodes that are alive.

        They are at most `spec.concurrency`.
        """
        fit = sum(
            min(int(node.get(kind, 0.0) / need + 1e-9) for kind, need in self._needs()) for node in _nodes()
        )
        return min(fit * pack, spec.concurrency or fit * pack)

    def _needs(self) -> list[tuple[str, float]]:
        return [(kind.upper(), need) for kind, need in self.share.items() if need]


def _nodes() -> list[dict[str, float]]:
    """Return the resources of each node that is alive."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [node["Resources"] for node in nodes if node["Alive"]]


def _remote(place: Place, function: Any, *arguments: Any) -> Any:
    options = ray.remote(function).options(
        num_cpus=place.share["cpu"], num_gpus=place.share["gpu"], max_retries=1
    )
    return options.remote(*arguments)


@contextmanager
def _plain_training(name: str) -> Iterator[None]:
    """Turn what goes wrong before the first trial into a sentence."""
    try:
        yield
    except RayError as error:
        cause = getattr(error, "cause", error)  # that of a task; a worker that died has none
        if isinstance(cause, UserError):
            raise UserError(str(cause)) from None
        what = f"{type(cause).__name__}: {' '.join(str(cause).split())}"
        raise UserError(f"plain training of {name} fails: {what}; mend the workload first") from error


def _plain_runs(spec: SweepSpec, place: Place) -> tuple[dict[int, Prepared], Curvature | None]:
    """Run the references and, where the mask wants it, measure the curvature, all at once."""
    with _plain_training(place.order.name):
        curvature = (
            _remote(place, prepare_curvature, place.order, spec.seed, spec.steps, spec.share)
            if wants_curvature(spec)
            else None
        )
        pending = [
            _remote(place, prepare_reference, place.order, seed, spec.steps, spec.eval_every, spec.share)
            for seed in spec.seeds
        ]
        references = dict(zip(spec.seeds, ray.get(pending), strict=True))
        return references, curvature and ray.get(curvature)


def _unit_costs(spec: SweepSpec, place: Place, remeasure: bool) -> dict[str, UnitCosts]:
    """Measure the unit costs of each class of configurations, one at a time."""
    classes = cost_classes(spec)
    if spec.unit_costs is not None:
        return dict.fromkeys(classes, UnitCosts(**spec.unit_costs.model_dump()))
    with _plain_training(place.order.name):
        return {
            key: ray.get(_remote(place, prepare_costs, place.order, config, remeasure))
            for key, config in classes.items()
        }


def _step_ratios(spec: SweepSpec, place: Place, steps: int, remeasure: bool) -> dict[str, float]:
    """Time a step of each kind of control; none where unit costs are given, for then nothing is measured."""
    if spec.unit_costs is not None:
        return {}
    arms = [Arm(**{k: v for k, v in c.config.items() if k != "steps"}) for c in controls(spec, steps, 2)]
    if not arms:
        return {}
    with _plain_training(place.order.name):
        ratios: dict[str, float] = ray.get(
            _remote(place, prepare_step_ratios, place.order, spec.seed, arms, steps, remeasure)
        )
        return ratios


def _packing(spec: SweepSpec, place: Place, tell: Tell) -> dict[str, Any]:
    """Decide how many trials a worker trains at once, and say why; nothing where one is asked for."""
    if spec.pack == 1:
        return {}
    workers = place.slots(spec)
    points = spec.budget(len(grid(spec)) if spec.sampler == "grid" else 0)
    runs = min(points * spec.repeats, spec.concurrency or points * spec.repeats)
    share = place.share["gpu"] or 1 / max(node.get("CPU", 1.0) for node in _nodes())
    with _plain_training(place.order.name):
        found: Packing = ray.get(
            _remote(place, prepare_packing, place.order, spec.pack, -(-runs // workers), share)
        )
    if found.why:
        tell(Note(found.why))
    return {"pack": {"asked": spec.pack, **found.to_dict()}}


def _keep_front(folder: ResultsFolder, models: Path) -> None:
    """Delete the weights of every run that is not on the front, once no run can get there any more."""
    trials = folder.trials()
    open_still = trials["state"].isin(["running", "failed"]) | (trials["reason"] == INTERRUPTED)
    if open_still.any():
        return
    on_front = set(folder.table("front")["trial_id"])
    kept = {
        model_file(t, s) for t, s in zip(trials["trial_id"], trials["seed"], strict=True) if t in on_front
    }
    for file in models.iterdir():
        if file.name not in kept:
            file.unlink()
