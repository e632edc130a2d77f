"""A session of a sweep: the references, warm workers, then the driver does the rest, and the tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import ray
from ray.exceptions import RayError

from hybrid_sweep.cluster.backend import RayBackend, actor_factory
from hybrid_sweep.cluster.batched_worker import BatchedWorker
from hybrid_sweep.cluster.checking import checked
from hybrid_sweep.cluster.connection import nodes
from hybrid_sweep.cluster.environment import environment
from hybrid_sweep.cluster.gpu_memory import needed_bytes
from hybrid_sweep.cluster.models import keep_front
from hybrid_sweep.cluster.prefix_store import start_directory
from hybrid_sweep.cluster.preparation_pool import PreparationPool, Task
from hybrid_sweep.cluster.preparations import (
    Prepared,
    prepare_batch_size,
    prepare_costs,
    prepare_curvature,
    prepare_reference,
    prepare_step_ratios,
)
from hybrid_sweep.cluster.ray_errors import summarize_ray_error
from hybrid_sweep.cluster.resources import ResourceRequest
from hybrid_sweep.cluster.worker import TrialWorker
from hybrid_sweep.cluster.worker_context import Shared, cost_classes
from hybrid_sweep.control import ControlConfig
from hybrid_sweep.driver.events import Note, OnEvent, SweepEnded, SweepEvent, TrialFinished
from hybrid_sweep.driver.sweep import SweepOutcome, begin, carry_on, preparation_timeout
from hybrid_sweep.errors import UserError
from hybrid_sweep.measure.batch_size import BatchSize
from hybrid_sweep.measure.costs import UnitCosts
from hybrid_sweep.measure.curvature import Curvature
from hybrid_sweep.measure.reference import Reference
from hybrid_sweep.measure.shared_prefix import SweepStore
from hybrid_sweep.results import ResultsFolder
from hybrid_sweep.search.controls import controls
from hybrid_sweep.search.mask import validate_mask, wants_curvature, with_curvature
from hybrid_sweep.search.space import given, grid
from hybrid_sweep.spec.sweep import SweepSpec
from hybrid_sweep.trainer.config import HybridConfig

REPORT_EVERY_SECONDS = 0.5
"""Reports of shorter cycles travel together: each call of a worker costs it two milliseconds."""


def begin_sweep(
    spec: SweepSpec,
    path: Path,
    unclaim: Callable[[], object],
    address: str | None,
    end_ray: Callable[[], object],
    keep_models: Literal["none", "front"],
    remeasure: bool,
    on_event: OnEvent,
) -> SweepOutcome[ResultsFolder]:
    """Run a sweep on the Ray that is connected, into a results folder that is made at `path`.

    Args:
        spec: what to run.
        path: a folder that is held for this sweep.
        unclaim: lets go of it, once it holds the sweep.
        address: of a Ray cluster; None where it was started for this sweep.
        end_ray: leaves it, while the tables are written.
        keep_models: as in `launch.run_sweep`.
        remeasure: as there.
        on_event: told of everything that happens.

    Raises:
        UserError: as there.
    """
    place, limit = ResourceRequest.from_spec(spec, address), preparation_timeout(spec)
    with closing(
        PreparationPool(actor_factory(TrialWorker, place.share), place.slots(spec), on_event, limit)
    ) as pool:
        with _plain_training(place.order.name):
            spec, unsaved = checked(spec, place.order, pool, on_event)
        seeds = ", ".join(map(str, spec.seeds))
        on_event(Note(f"plain training, seeds {seeds}: what every trial is compared with"))
        prepared, curvature, costs = _prepared(spec, place, pool, remeasure)
        references = {seed: each.reference for seed, each in prepared.items()}
        if warning := prepared[spec.seed].warning:
            on_event(Note(warning))
        if curvature:
            spec, said = with_curvature(spec, curvature.eta_lambda, curvature.why_not)
            on_event(Note(said))
            validate_mask(spec)
        steps = references[spec.seed].steps[-1]
        path = begin(
            path,
            spec,
            steps,
            {
                **environment(place.order.device),
                **prepared[spec.seed].began_with,
                "unsaved": unsaved,
                "keep_models": keep_models,
                "quality": prepared[spec.seed].quality,
                "unit_costs": next(iter(costs.values())).to_dict(),
                "control_step_ratios": _step_ratios(spec, place, pool, steps, costs, remeasure),
                **_packing(spec, place, pool, on_event),
                "unit_costs_by_setting": {key: value.to_dict() for key, value in costs.items()},
                **({"curvature": curvature.to_dict()} if curvature else {}),
                "references": {str(seed): r.to_dict() for seed, r in references.items()},
            },
            claimed=True,
        ).path
        unclaim()
        kept = sum(each.from_cache for each in prepared.values())
        return _carry_on(ResultsFolder(path), spec, place, end_ray, _TellsWhatWasKept(on_event, kept), pool)


def go_on(
    folder: ResultsFolder,
    spec: SweepSpec,
    address: str | None,
    end_ray: Callable[[], object],
    retry_failed: bool,
    on_event: OnEvent,
) -> SweepOutcome[ResultsFolder]:
    """Go on with the sweep of a folder on the Ray that is connected.

    Args:
        folder: of the sweep.
        spec: what it is now.
        address: as in `begin_sweep`.
        end_ray: as there.
        retry_failed: as in `launch.resume_sweep`.
        on_event: told of everything that happens.

    Raises:
        UserError: it began on another device.
    """
    place = ResourceRequest.from_spec(spec, address)
    began_on = (folder.manifest.get("hardware") or {}).get("device")
    if began_on != place.order.device:
        raise UserError(
            f"the sweep began on {began_on}, and its references and unit costs do not hold on "
            f"{place.order.device}: resume it where there is {began_on}"
        )
    if unsaved := folder.manifest.get("unsaved"):
        on_event(Note(unsaved))
    return _carry_on(folder, spec, place, end_ray, _TellsWhatWasKept(on_event), retry_failed=retry_failed)


def _carry_on(
    folder: ResultsFolder,
    spec: SweepSpec,
    place: ResourceRequest,
    end_ray: Callable[[], object],
    on_event: OnEvent,
    pool: PreparationPool | None = None,
    *,
    retry_failed: bool = False,
) -> SweepOutcome[ResultsFolder]:
    """Bring the workers up, those of the pool first, and let the driver work."""
    manifest = folder.manifest
    models = folder.models_path if manifest.get("keep_models") == "front" else None
    if models:
        models.mkdir(exist_ok=True)
    references = {int(seed): Reference(**r) for seed, r in manifest["references"].items()}
    known = [config for _, config in given(spec)]
    known += [point.config for point in grid(spec)] if spec.sampler == "grid" else []
    pack = (manifest.get("pack") or {}).get("size", 1)
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
        tried=[HybridConfig(**config) for config in known],
        open_ended=spec.sampler != "grid",
        pack=pack,
        report_seconds=report_seconds(spec, pack),
        report_every=spec.report_every,
        saves=not manifest.get("unsaved"),
        began_with={name: manifest.get(name) for name in ("code", "recipe", "platform")},
        edges=start_directory() if spec.share and not models else None,
    )
    with ExitStack() as used:
        used.callback(SweepStore(manifest["sweep_id"]).close)
        if shared.edges:
            used.callback(ray.kill, shared.edges)
        if pool:
            used.callback(pool.close)

        def backend() -> RayBackend:
            if pool and shared.pack > 1:
                pool.close()
            backend = RayBackend(
                BatchedWorker if shared.pack > 1 else TrialWorker,
                (ray.put(shared),),
                place.share,
                partial(place.slots_now, spec, shared.pack, folder.path),
                shared.pack,
                pool.hand_over() if pool else (),
                preparation_timeout(spec),
            )
            used.callback(backend.close)
            return backend

        def finish(folder: ResultsFolder) -> None:
            used.close()
            if models:
                keep_front(folder, models)
            with ThreadPoolExecutor(1) as beside:  # Ray mostly waits while it ends, too
                written = beside.submit(folder.export_all)
                try:
                    end_ray()
                finally:
                    written.result()

        return carry_on(folder, spec, backend, on_event, retry_failed=retry_failed, finish=finish)


def report_seconds(spec: SweepSpec, pack: int) -> float:
    """Return for how long a worker may go on before it reports.

    Early stopping decides by each cycle, and in a pack others wait for a call that trains a control.
    """
    return 0.0 if spec.early_stopping or pack > 1 else REPORT_EVERY_SECONDS


@dataclass(slots=True)
class _TellsWhatWasKept:
    """Passes events on, and before the last one says what was not trained, since an earlier sweep had."""

    on_event: OnEvent
    references: int = 0
    controls: int = 0

    def __call__(self, event: SweepEvent) -> None:
        if isinstance(event, TrialFinished):
            self.controls += event.from_cache
        counts = {"reference": self.references, "control": self.controls}
        kept = [f"{count} {name}{'s' * (count > 1)}" for name, count in counts.items() if count]
        if isinstance(event, SweepEnded) and kept:
            self.on_event(Note(f"{' and '.join(kept)} from the cache"))
        self.on_event(event)


@contextmanager
def _plain_training(name: str) -> Iterator[None]:
    """Turn what goes wrong before the first trial into a sentence."""
    try:
        yield
    except RayError as error:
        if isinstance(getattr(error, "cause", None), UserError):
            raise UserError(summarize_ray_error(error)) from None
        raise UserError(
            f"plain training of {name} fails: {summarize_ray_error(error)}; fix the workload first"
        ) from None


def _prepared(
    spec: SweepSpec, place: ResourceRequest, pool: PreparationPool, remeasure: bool
) -> tuple[dict[int, Prepared], Curvature | None, dict[str, UnitCosts]]:
    """Run the references, and where they are wanted measure curvature and unit costs, side by side.

    Unit costs are measured one at a time: beside a reference on a CPU, whose cores others have too once there
    are trials, but on a GPU when nothing else runs there.
    """
    order, given = place.order, spec.unit_costs
    classes = cost_classes(spec)

    def ask_costs() -> list[Task]:
        wanted = order, classes, spec.steps, remeasure
        return (
            []
            if given is not None
            else [pool.ask(prepare_costs, *wanted, last=True, label="unit costs", tells=True)]
        )

    with _plain_training(order.name):
        runs = [
            pool.ask(
                prepare_reference,
                *(order, seed, spec.steps, spec.eval_every, spec.share),
                label=f"steps of plain training, seed {seed}",
                tells=True,
            )
            for seed in spec.seeds
        ]
        wanted = order, spec.seed, spec.steps, spec.share
        bent = wants_curvature(spec) and pool.ask(prepare_curvature, *wanted, label="curvature", tells=True)
        early = ask_costs() if order.device == "cpu" else []
        references = dict(zip(spec.seeds, pool.hear(*runs), strict=True))
        curvature = pool.hear(bent)[0] if bent else None
        measured = pool.hear(*(early or ask_costs()))
    costs: dict[str, UnitCosts] = measured[0] if measured else {}
    if given is not None:
        costs = dict.fromkeys(classes, UnitCosts(**given.model_dump()))
    return references, curvature, costs


def _step_ratios(
    spec: SweepSpec,
    place: ResourceRequest,
    pool: PreparationPool,
    steps: int,
    costs: dict[str, UnitCosts],
    remeasure: bool,
) -> dict[str, float]:
    """Time a step of each kind of control; none where unit costs are given, for then nothing is measured."""
    if spec.unit_costs is not None:
        return {}
    arms = [
        ControlConfig(**{k: v for k, v in c.config.items() if k != "steps"}) for c in controls(spec, steps, 2)
    ]
    if not arms:
        return {}
    first = next(iter(costs.values()))
    wanted = place.order, spec.seed, arms, steps, remeasure, first.plain_step + first.batch
    with _plain_training(place.order.name):
        ratios: dict[str, float]
        (ratios,) = pool.hear(
            pool.ask(prepare_step_ratios, *wanted, last=True, label="costs of controls", tells=True)
        )
        return ratios


def _packing(
    spec: SweepSpec, place: ResourceRequest, pool: PreparationPool, on_event: OnEvent
) -> dict[str, Any]:
    """Decide how many trials a worker trains at once, and say why; nothing where one is asked for."""
    if spec.pack == 1:
        return {}
    workers = place.slots(spec)
    points = spec.budget(len(grid(spec)) if spec.sampler == "grid" else 0)
    runs = min(points * spec.repeats, spec.concurrency or points * spec.repeats)
    share = place.share["gpu"] or 1 / max(node.get("CPU", 1.0) for node in nodes())
    with _plain_training(place.order.name):
        found: BatchSize
        pool.shrink()
        wanted = place.order, spec.pack, -(-runs // workers), share
        (found,) = pool.hear(pool.ask(prepare_batch_size, *wanted, label="packing", last=True))
    if found.why:
        on_event(Note(found.why))
    return {"pack": {"asked": spec.pack, **found.to_dict()}}
