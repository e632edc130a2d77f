"""A sweep as its results folder: begin one, and carry it on from whatever its journal holds."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from math import inf
from pathlib import Path
from typing import Any, Generic, TypeVar
from uuid import uuid4

from hybrid_sweep.analysis.objectives import quality_kind
from hybrid_sweep.analysis.pareto import recommended
from hybrid_sweep.analysis.table import read_trials
from hybrid_sweep.control import ABLATION
from hybrid_sweep.credentials import public
from hybrid_sweep.driver.backend import Backend, Key, Run
from hybrid_sweep.driver.events import Note, OnEvent, SweepEnded, SweepStarted, TrialFinished
from hybrid_sweep.driver.loop import Loop
from hybrid_sweep.driver.moved import workload_at
from hybrid_sweep.driver.origin import mark
from hybrid_sweep.driver.recorder import Recorder, writing
from hybrid_sweep.errors import UserError
from hybrid_sweep.paths import user_path
from hybrid_sweep.search.asked import AskedPoint
from hybrid_sweep.search.controls import Control, ablations, controls
from hybrid_sweep.search.halving import validate_rungs
from hybrid_sweep.search.replay import replay, validate_same_space
from hybrid_sweep.search.sampler import sampler_arguments
from hybrid_sweep.search.space import Point
from hybrid_sweep.search.storage import StorageView, without_password
from hybrid_sweep.search.study import Study
from hybrid_sweep.search.warm_start import known_points
from hybrid_sweep.spec.sweep import SweepSpec
from hybrid_sweep.store.folder import SweepFolder
from hybrid_sweep.store.journal import Journal
from hybrid_sweep.store.runs import INTERRUPTED, run_of

FORMAT = 6
"""Of a results folder: what its journal and manifest hold. Another one is read, but not carried on."""

SHORTEST_TIMEOUT_SECONDS = 900.0
REFERENCES_OF_TIMEOUT = 20.0
"""Without a `trial_timeout` a run hangs that is silent for both: a busy machine never loses a good one."""
PREPARATION_SECONDS = 3600.0
"""The same of a preparation, which may load data or compile, and of which no time is known yet."""
LEAST_PREPARATION_SECONDS = 10.0
"""No shorter silence counts of one: so long a sign can take to reach the driver of a busy machine."""


Folder = TypeVar("Folder", bound=SweepFolder)


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepOutcome(Generic[Folder]):
    """How a session ended: where the results are, runs of the sweep by state, and by whose will."""

    folder: Folder
    counts: dict[str, int]
    interrupted: bool


def begin(
    path: Path, spec: SweepSpec, steps: int, measured: Mapping[str, Any], *, claimed: bool = False
) -> SweepFolder:
    """Make the results folder of a new sweep.

    Args:
        path: a new or empty folder.
        spec: the sweep.
        steps: logical steps of a run.
        measured: what else the manifest says: references, unit costs, environment.
        claimed: whether the folder is held for this sweep, as by `SweepFolder.claimed`.

    Raises:
        UserError: an earlier sweep to learn from does not fit, early stopping could judge nothing, there is
            no room for the folder, or its storage does not take it; nothing has been written then.
    """
    path = user_path(path)
    validate_rungs(spec, steps)
    known = [point for earlier in spec.warm_start for point in known_points(SweepFolder.open(earlier), spec)]
    sweep_id = uuid4().hex
    folder = SweepFolder.create(path, claimed=claimed)
    try:
        StorageView.open(spec.storage, path, f"{spec.name}-{sweep_id}", new=True)
        for point in known:
            folder.journal.append(point.event())
        folder.write_manifest(
            {
                "format": FORMAT,
                "sweep_id": sweep_id,
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
                "spec": _public(spec),
                **workload_at(spec, path),
                "seeds": spec.seeds,
                "steps": steps,
                "sampler": sampler_arguments(spec),
                "hypervolume_reference": spec.hypervolume_reference.model_dump(),
                **measured,
            }
        )
        mark(folder, spec)
    except BaseException as error:
        shutil.rmtree(path, ignore_errors=True)
        if not isinstance(error, OSError):
            raise
        raise UserError(
            f"cannot write to {path} ({error.strerror}): make room there, or choose another folder"
        ) from None
    return folder


def recorded_spec(folder: SweepFolder, changes: Mapping[str, Any] | None = None) -> SweepSpec:
    """Return the sweep of a results folder, some of its fields changed for its next session.

    Raises:
        UserError: the folder is of another version, or holds no manifest, or the changes would make it
            another sweep.
    """
    manifest = folder.manifest
    found = manifest.get("format", 1)
    if not manifest:
        raise UserError(f"{folder.path} has no manifest, so nothing of it can go on: run the sweep again")
    version = (manifest.get("versions") or {}).get("hybrid-sweep", "of another version")
    if found != FORMAT:
        raise UserError(
            f"{folder.path} was written in format {found} by hybrid-sweep {version}, and this version "
            f"carries on format {FORMAT} only: resume it with that version, or run the sweep again"
        )
    if not manifest.get("steps"):
        raise UserError(f"the manifest of {folder.path} is corrupt (no steps): restore it from a copy")
    try:
        recorded = SweepSpec(**manifest["spec"])
        spec = SweepSpec(**{**manifest["spec"], **(changes or {})})
        validate_same_space(spec, recorded)
        return spec
    except (KeyError, TypeError) as error:
        raise UserError(
            f"the manifest of {folder.path} is corrupt ({error}): restore it from a copy"
        ) from None


def replayed(folder: SweepFolder) -> int:
    """Ask a sweep's points again, without training anything; return how many came out the same.

    Raises:
        UserError: the first point that did not, or a folder of another version.
    """
    spec, manifest = recorded_spec(folder), folder.manifest
    return len(replay(spec, manifest["sweep_id"], manifest["steps"], Journal.events(folder.journal.path)))


def carry_on(
    folder: Folder,
    spec: SweepSpec,
    make_backend: Callable[[], Backend],
    on_event: OnEvent,
    *,
    retry_failed: bool = False,
    finish: Callable[[Folder], object],
) -> SweepOutcome[Folder]:
    """Run what a sweep still has to run, whatever ended the session before: nothing is run twice.

    Args:
        folder: of the sweep.
        spec: `recorded_spec`, or the one that the sweep began with.
        make_backend: where runs happen, made once the journal is read and the folder is ours.
        on_event: told of everything that happens.
        retry_failed: also open the runs again that failed.
        finish: writes the tables at the end.

    Raises:
        UserError: another process drives the sweep, or its journal is corrupt.
    """
    with folder.driven(), writing(folder.path):
        manifest, journal = folder.manifest, folder.journal.path
        recorder = Recorder(folder, on_event)
        view = StorageView.open(
            spec.storage,
            folder.path,
            f"{spec.name}-{manifest['sweep_id']}",
            new=False,
            on_error=recorder.note,
        )
        study = Study(spec, manifest["sweep_id"], manifest["steps"], on_told=view.add)
        study.restore(Journal.events(journal, skip=() if spec.early_stopping else ("reported",)))
        if spec.trials is not None and spec.trials < study.asked:
            raise UserError(
                f"trials={spec.trials} is fewer than the {study.asked} points that were tried already: "
                "give more, or leave it out"
            )
        planned = controls(spec, manifest["steps"], study.budget)
        if retry_failed:
            for key in _failed(Journal.events(journal, skip=("reported",))):
                recorder.retried(key)
                study.retry(key)
        events = Journal.read(journal, skip=("reported",))
        ended = _ended(events)
        folder.forget_checkpoints(ended)
        left = partial(_left, seeds=spec.seeds, events=events, ended=ended)
        unfinished = left(AskedPoint.from_event(event).point for event in events if event["event"] == "asked")
        recorder.arms = started_arms(events)
        recorder.arms.update((control.trial_id, control.arm) for control in planned)
        expected = _ablations(folder, spec) or ablations(spec, "", {})
        beside = len(recorder.arms.keys() | {control.trial_id for control in expected})
        now = {"spec": _public(spec), **workload_at(spec, folder.path)}
        folder.write_manifest({**manifest, **now, "budget": study.budget, "controls": beside})
        mark(folder, spec)
        for event in ended.values():
            arm, reason = recorder.arms.get(event["trial_id"], ""), event.get("reason") or ""
            on_event(TrialFinished(*run_of(event), event["state"], reason, event.get("result", {}), arm))
        started = _started_ablations(events)
        interrupted = False
        if unfinished or study.has_more or left([*planned, *started, *_ablations(folder, spec)]):
            backend = make_backend()
            total = (study.budget + beside) * spec.repeats
            on_event(SweepStarted(total, folder.path, backend.slots, len(ended)))
            limits = spec.max_retries, run_timeout(spec, manifest)
            loop = Loop(study, backend, recorder, spec.seeds, *limits, folder.stop_request.exists)
            interrupted = loop.run(unfinished, left([*planned, *started]))
            if not interrupted:
                again = {control.trial_id for control in started}
                others = [c for c in _ablations(folder, spec) if c.trial_id not in again]
                recorder.arms.update((control.trial_id, control.arm) for control in others)
                folder.write_manifest({**folder.manifest, "controls": len(recorder.arms)})
                interrupted = loop.run(controls=left(others))
        else:
            on_event(Note("nothing is left to run"))
        if missing := left_out(Journal.events(journal, skip=("reported",)), recorder.arms):
            folder.write_manifest({**folder.manifest, "left_out": missing})
            for reason in missing.values():
                on_event(Note(f"a control is left out: {reason}"))
        if masked := len(study.masked):
            folder.write_manifest({**folder.manifest, "masked": masked})
            points = "point" if masked == 1 else "points"
            on_event(Note(f"{masked} {points} masked as unstable, at no cost; `mask: null` would try them"))
        if study.flat and not interrupted:
            on_event(Note("the hypervolume has stopped growing: no more points are tried"))
        elif not interrupted:  # a space may hold fewer points than it seemed to
            folder.write_manifest({**folder.manifest, "budget": study.asked})
        view.close()
        finish(folder)
        counts = {str(state): int(n) for state, n in read_trials(folder)["state"].value_counts().items()}
        on_event(SweepEnded(counts, interrupted))
        return SweepOutcome(folder=folder, counts=counts, interrupted=interrupted)


def run_timeout(spec: SweepSpec, manifest: Mapping[str, Any]) -> float:
    """Return the seconds without a report after which a run hangs, by default many times its reference's."""
    plain_step = float((manifest.get("unit_costs") or {}).get("plain_step") or 0.0)
    usual = REFERENCES_OF_TIMEOUT * int(manifest["steps"]) * plain_step
    return _timeout(spec, max(SHORTEST_TIMEOUT_SECONDS, usual))


def _timeout(spec: SweepSpec, usual: float) -> float:
    if spec.trial_timeout == "auto":
        return usual
    return inf if spec.trial_timeout is None else spec.trial_timeout


def preparation_timeout(spec: SweepSpec) -> float:
    """Return the seconds without a sign of life after which what precedes the runs hangs."""
    return max(_timeout(spec, PREPARATION_SECONDS), LEAST_PREPARATION_SECONDS)


def _public(spec: SweepSpec) -> dict[str, Any]:
    """Return a sweep as its manifest holds it: who reads the results need not have its secrets."""
    workload = {"name": spec.workload.name, **public(spec.workload.keywords)}
    storage = spec.storage and without_password(spec.storage)
    return {**spec.model_dump(), "workload": workload, "storage": storage}


def _ended(events: Iterable[Mapping[str, Any]]) -> dict[Key, Mapping[str, Any]]:
    """Return the last `finished` event of every run that has ended and was not opened again."""
    ended: dict[Key, Mapping[str, Any]] = {}
    for event in events:
        if event["event"] == "finished":
            ended[run_of(event)] = event
        elif event["event"] == "retried":
            ended.pop(run_of(event), None)
    return ended


def started_arms(events: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return the arms of the controls that were started, by trial id."""
    return {e["trial_id"]: e["arm"] for e in events if e["event"] == "started" and e.get("arm")}


def left_out(events: Iterable[Mapping[str, Any]], arms: Mapping[str, str]) -> dict[str, str]:
    """Return why, by arm, the controls that do not apply to the recipe: no other one is ever pruned."""
    ended = _ended(events).values()
    pruned = [e for e in ended if e["state"] == "pruned" and arms.get(e["trial_id"], ABLATION) != ABLATION]
    pruned = [e for e in pruned if e.get("reason") != INTERRUPTED]
    return {arms[e["trial_id"]]: e.get("reason") or "" for e in pruned}


def _failed(events: Iterable[Mapping[str, Any]]) -> list[Key]:
    return [key for key, event in _ended(events).items() if event["state"] == "failed"]


def _attempts(events: Iterable[Mapping[str, Any]]) -> dict[Key, int]:
    """Return how often each run was started."""
    attempts: dict[Key, int] = {}
    for event in events:
        if event["event"] == "started":
            attempts[run_of(event)] = max(attempts.get(run_of(event), 0) + 1, event.get("attempt") or 1)
    return attempts


def _left(
    planned: Iterable[Point | Control],
    *,
    seeds: list[int],
    events: list[dict[str, Any]],
    ended: Mapping[Key, Any],
) -> list[Run]:
    """Return the runs of points or controls that have not ended, with the number of their next attempt."""
    attempts = _attempts(events)
    return [
        Run(**asdict(each), seed=seed, attempt=attempts.get((each.trial_id, seed), 0) + 1)
        for each in planned
        for seed in seeds
        if (each.trial_id, seed) not in ended
    ]


def _started_ablations(events: Iterable[Mapping[str, Any]]) -> list[Control]:
    """Return the ablations that were started, also those of a point that is not the best any more."""
    started = {e["trial_id"]: e for e in events if e["event"] == "started" and e.get("arm") == ABLATION}
    return [Control(trial_id=name, arm=ABLATION, config=e["config"]) for name, e in started.items()]


def _ablations(folder: SweepFolder, spec: SweepSpec) -> list[Control]:
    """Return the ablations of the point that the sweep recommends so far."""
    if spec.controls != "full":
        return []
    best = recommended(read_trials(folder), spec.speedup_column, quality_kind(folder.manifest))
    return [] if best is None else ablations(spec, best["trial_id"], json.loads(best["config"]))
