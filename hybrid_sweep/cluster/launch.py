"""run_sweep: references first, then every trial on Ray Tune, then the results folder."""

from __future__ import annotations

import importlib
import json
import logging
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import ray
from ray import tune
from ray.exceptions import RayError

from hybrid_sweep.analysis.folder import ResultsFolder
from hybrid_sweep.driver.events import Note, SweepEnded, SweepEvent, SweepStarted
from hybrid_sweep.cluster.manifest import environment
from hybrid_sweep.driver.recorder import Recorder
from hybrid_sweep.cluster.work import (
    Device,
    Shared,
    WorkloadOrder,
    cost_class,
    model_file,
    prepare_costs,
    prepare_reference,
)
from hybrid_sweep.errors import UserError
from hybrid_sweep.measure.costs import UnitCosts
from hybrid_sweep.measure.reference import Reference
from hybrid_sweep.search.space import Point, grid
from hybrid_sweep.spec import SweepSpec
from hybrid_sweep.trainer.config import HybridConfig
from hybrid_sweep.workload import find_workload, travelling

TRAINABLE = "trainables.hybrid", "HybridTrainable"  # content: reached by name
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # progress is ours
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",  # of a second reference, where the first one has failed already
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
}
KNOCK_SECONDS = 5.0
NOT_TRAVELLING = [".git", ".venv", "results", "__pycache__"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepOutcome:
    """How a sweep ended: where its results are, how many runs ended in each state, and by whose will."""

    folder: ResultsFolder
    counts: dict[str, int]
    interrupted: bool


def run_sweep(
    spec: SweepSpec,
    out: Path | None = None,
    *,
    address: str | None = None,
    keep_models: Literal["none", "front"] = "none",
    remeasure: bool = False,
    on_event: Callable[[SweepEvent], None] | None = None,
) -> SweepOutcome:
    """Run every point of a sweep with every seed and write its results folder.

    Args:
        spec: what to run.
        out: a new or empty folder; None makes `results/<name>-<time>`.
        address: an existing Ray cluster; None starts a local one and ends it.
        keep_models: "front" keeps the trained weights of the front, in `models/` of the results folder,
            which on a cluster must be shared by its nodes.
        remeasure: measure the unit costs anew instead of taking those that this machine has kept.
        on_event: told of everything that happens, in the driver's thread.

    Raises:
        UserError: a workload, data or setting that cannot work; nothing has been written then.
    """
    tell = on_event or (lambda event: None)
    points = grid(spec)
    seeds = spec.seeds
    created = datetime.now(UTC)
    path = (out or Path("results") / f"{spec.name}-{created:%Y%m%dT%H%M%SZ}").absolute()
    ResultsFolder.refuse_taken(path)
    if address is None:
        find_workload(spec.workload.name, **spec.workload.keywords)  # refused now, not after Ray's start
    tell(Note("starting Ray" if address is None else f"connecting to Ray at {address}"))
    with _ray(spec, address):
        device, slots = _resources(spec)
        order = _order(spec, device, address)
        tell(Note(f"plain training, seeds {', '.join(map(str, seeds))}: what every trial is compared with"))
        references, costs = _prepare(spec, order, points, remeasure)
        folder = ResultsFolder.create(path)
        folder.write_manifest(
            {
                "sweep_id": uuid4().hex,
                "created": created.isoformat(timespec="seconds"),
                "spec": spec.model_dump(),
                **environment(device),
                "seeds": seeds,
                "unit_costs": next(iter(costs.values())).to_dict(),
                "unit_costs_by_setting": {key: value.to_dict() for key, value in costs.items()},
                "hypervolume_reference": spec.hypervolume_reference.model_dump(),
                "references": {str(seed): r.to_dict() for seed, r in references.items()},
            }
        )
        models = folder.models_path if keep_models == "front" else None
        shared = Shared(
            order=order,
            references=references,
            costs=costs,
            frozen_control=spec.frozen_control,
            models=models,
        )
        if models:
            models.mkdir()
        runs = [_run(point, seed) for seed in seeds for point in points]
        tell(SweepStarted(len(runs), path, slots))
        recorder = Recorder(folder, tell)
        interrupted = _fit(runs, shared, recorder, slots, _share(spec, device), tell)
    recorder.close(interrupted, [(run["trial_id"], run["seed"]) for run in runs])
    if models:
        _keep_front(folder, models)
    folder.export_all()
    tell(SweepEnded(dict(recorder.counts), interrupted))
    return SweepOutcome(folder=folder, counts=dict(recorder.counts), interrupted=interrupted)


@contextmanager
def _ray(spec: SweepSpec, address: str | None) -> Iterator[None]:
    """Connect to a cluster, or start a local one for as long as the sweep runs."""
    os.environ.update(QUIET)
    if address is not None:
        _refuse_unreachable(address)
    if ray.is_initialized():
        yield
        return
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
        if data := os.environ.get("HYBRID_SWEEP_DATA"):
            os.environ["HYBRID_SWEEP_DATA"] = str(Path(data).resolve())  # workers stand in another folder
        options |= {"address": "local", "include_dashboard": False, "num_cpus": _local_cpus(spec)}
    else:
        options["address"] = address
        if travel := travelling(spec.workload.name):
            options["runtime_env"] = {"working_dir": str(travel[0]), "excludes": NOT_TRAVELLING}
    try:
        ray.init(**options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UserError(f"Ray cannot be reached at {address or 'this machine'}: {error}") from None
    try:
        yield
    finally:
        ray.shutdown()


def _refuse_unreachable(address: str) -> None:
    """Knock at `host:port` first: Ray itself tries for minutes.

    Raises:
        UserError: nobody answers there.
    """
    host, _, port = address.rpartition(":")
    if "/" in host or not (host and port.isdecimal()):
        return  # "auto", "ray://...": Ray's to judge
    try:
        socket.create_connection((host, int(port)), timeout=KNOCK_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise UserError(
            f"no Ray answers at {address} ({error}): start one there, or leave --address out"
        ) from None


def _local_cpus(spec: SweepSpec) -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(cores, spec.concurrency or 1)


def _resources(spec: SweepSpec) -> tuple[Device, int]:
    """Return the trials' device and how many run at once.

    Raises:
        UserError: CUDA is asked for and the cluster has no GPU.
    """
    have: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    gpus = int(have.get("GPU", 0))
    if spec.device == "cuda" and not gpus:
        raise UserError("device=cuda is not available: Ray sees no GPU; use --device cpu")
    device: Device = "cuda" if gpus and spec.device != "cpu" else "cpu"
    most = int(have.get("CPU", 1))
    if device == "cuda":
        most = min(most, gpus * int(1 / spec.gpus_per_trial))
    return device, min(spec.concurrency or most, most)


def _share(spec: SweepSpec, device: Device) -> dict[str, float]:
    return {"cpu": 1, "gpu": spec.gpus_per_trial if device == "cuda" else 0}


def _order(spec: SweepSpec, device: Device, address: str | None) -> WorkloadOrder:
    travel = travelling(spec.workload.name) if address else None
    name = travel[1] if travel else spec.workload.name
    return WorkloadOrder(name=name, keywords=spec.workload.keywords, device=device)


def _prepare(
    spec: SweepSpec, order: WorkloadOrder, points: list[Point], remeasure: bool
) -> tuple[dict[int, Reference], dict[str, UnitCosts]]:
    """Run the references, all at once, and then, one at a time, measure the unit costs of each class."""
    share = _share(spec, order.device)

    def remote(function: Any, *arguments: Any) -> Any:
        options = ray.remote(function).options(num_cpus=share["cpu"], num_gpus=share["gpu"], max_retries=1)
        return options.remote(*arguments)

    try:
        pending = [remote(prepare_reference, order, seed, spec.steps, spec.eval_every) for seed in spec.seeds]
        references = dict(zip(spec.seeds, ray.get(pending), strict=True))
        classes = {cost_class(config): config for config in (HybridConfig(**p.config) for p in points)}
        if spec.unit_costs is not None:
            return references, dict.fromkeys(classes, UnitCosts(**spec.unit_costs.model_dump()))
        costs = {}
        for key in classes:
            alike = HybridConfig(**{**spec.trainer, **json.loads(key)})
            costs[key] = ray.get(remote(prepare_costs, order, alike, remeasure))
        return references, costs
    except RayError as error:
        cause = getattr(error, "cause", error)  # that of a task; a worker that died has none
        if isinstance(cause, UserError):
            raise UserError(str(cause)) from None
        what = f"{type(cause).__name__}: {' '.join(str(cause).split())}"
        raise UserError(f"plain training of {order.name} fails: {what}; mend the workload first") from error


def _run(point: Point, seed: int) -> dict[str, Any]:
    return {"trial_id": point.trial_id, "seed": seed, "config": point.config}


def _fit(
    runs: list[dict[str, Any]],
    shared: Shared,
    recorder: Recorder,
    slots: int,
    share: dict[str, float],
    tell: Callable[[SweepEvent], None],
) -> bool:
    """Run all trials; return whether Ctrl-C ended them early."""
    module, name = TRAINABLE
    trainable = tune.with_parameters(getattr(importlib.import_module(module), name), shared=shared)
    scratch = Path(tempfile.mkdtemp(prefix="hybrid-sweep-"))
    try:
        tuner = tune.Tuner(
            tune.with_resources(trainable, share),
            param_space={"point": tune.grid_search(runs)},
            tune_config=tune.TuneConfig(
                max_concurrent_trials=slots,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=tune.RunConfig(
                name="sweep",
                storage_path=str(scratch),
                callbacks=[recorder],
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                verbose=0,
            ),
        )
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # what goes wrong is in the journal
        tuner.fit()
    except KeyboardInterrupt:
        return True
    except Exception as error:  # the runs without a result are lost, what has one is kept
        tell(Note(f"Ray ended the sweep: {type(error).__name__}: {error}"))
        return False
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return sum(recorder.counts.values()) < len(runs)


def _keep_front(folder: ResultsFolder, models: Path) -> None:
    """Delete the weights of every run that is not on the front."""
    on_front = set(folder.table("front")["trial_id"])
    trials = folder.trials()
    kept = {
        model_file(t, s) for t, s in zip(trials["trial_id"], trials["seed"], strict=True) if t in on_front
    }
    for file in models.iterdir():
        if file.name not in kept:
            file.unlink()
