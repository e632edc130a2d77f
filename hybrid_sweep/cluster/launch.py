"""run_sweep and resume_sweep: what cannot work is refused, Ray starts, and then a session does the rest."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hybrid_sweep.cluster.connection import connected
from hybrid_sweep.cluster.resume_hint import ResumeHint
from hybrid_sweep.driver.events import Note, OnEvent, SweepEvent
from hybrid_sweep.paths import user_path
from hybrid_sweep.spec.sweep import SweepSpec
from hybrid_sweep.store.folder import SweepFolder, Taken
from hybrid_sweep.user_code import stop_within_import, whole_keywords
from hybrid_sweep.workload import find_workload, located

if TYPE_CHECKING:
    from hybrid_sweep.driver.sweep import SweepOutcome
    from hybrid_sweep.results import ResultsFolder


def run_sweep(
    spec: SweepSpec,
    out: Path | None = None,
    *,
    address: str | None = None,
    keep_models: Literal["none", "front"] = "none",
    remeasure: bool = False,
    on_event: OnEvent | None = None,
) -> SweepOutcome[ResultsFolder]:
    """Run a sweep and write its results folder.

    Args:
        spec: what to run.
        out: a new or empty folder; None makes `results/<name>-<time>`, with -2 where that is taken.
        address: an existing Ray cluster; None starts a local one and ends it.
        keep_models: "front" keeps the trained weights of the front, in `models/` of the results folder,
            which on a cluster must be shared by its nodes.
        remeasure: measure the unit costs again instead of taking those that this machine has kept.
        on_event: told of everything that happens, in the driver's thread.

    Raises:
        UserError: a workload, data or setting that cannot work, or a space whose every point is masked;
            nothing has been written then.
    """
    stop_within_import()
    on_event = on_event or _ignore_event
    if out is not None:
        SweepFolder.validate_free(out)
    name = located(spec.workload.name, Path())  # workers stand in another folder
    spec = spec.model_copy(update={"workload": spec.workload.model_copy(update={"name": name})})
    _validate(spec)
    if address is None:
        find_workload(
            spec.workload.name, **whole_keywords(spec.workload.keywords)
        )  # refused now, not after Ray's start
    with ResumeHint() as resume_hint, ExitStack() as claim, ExitStack() as session:
        path = _claimed(claim, spec, out)
        _connect(session, spec, address, on_event)
        from hybrid_sweep.cluster.session import begin_sweep

        def unclaim() -> None:
            claim.close()
            resume_hint.resume(path)

        return begin_sweep(spec, path, unclaim, address, session.close, keep_models, remeasure, on_event)


def resume_sweep(
    path: Path,
    *,
    changes: Mapping[str, Any] | None = None,
    address: str | None = None,
    retry_failed: bool = False,
    workload: str | None = None,
    trust: bool = False,
    on_event: OnEvent | None = None,
) -> SweepOutcome[ResultsFolder]:
    """Go on with a sweep that was interrupted, killed or is to have more trials; nothing is run twice.

    Args:
        path: its results folder.
        changes: fields of the sweep that may change between sessions: trials, concurrency, storage, ...
        address: an existing Ray cluster; None starts a local one and ends it.
        retry_failed: also run again what failed.
        workload: import string of where the workload is now; None finds it where it was, as seen from the
            results folder or from anywhere.
        trust: run the folder's code also where this user did not start the sweep on this machine.
        on_event: told of everything that happens, in the driver's thread.

    Raises:
        UserError: the folder is no sweep's, of another version, or driven by another process; its workload
            is gone, was changed, is not trusted, or `workload` is another one.
    """
    from hybrid_sweep.driver.moved import with_workload
    from hybrid_sweep.driver.origin import validate_storage_origin, validate_trust
    from hybrid_sweep.driver.sweep import recorded_spec
    from hybrid_sweep.results import ResultsFolder

    stop_within_import()
    on_event = on_event or _ignore_event
    folder = ResultsFolder.open(path)
    spec = with_workload(recorded_spec(folder, changes), folder, workload)
    if "storage" not in (changes or {}):
        validate_storage_origin(folder, spec.storage)
    validate_trust(folder, spec, trust=trust)
    if address is None:
        find_workload(spec.workload.name, **whole_keywords(spec.workload.keywords))
    with folder.driven():  # what is wrong there is said before Ray is started in vain
        _validate_storage(spec)
    with ResumeHint() as resume_hint, ExitStack() as session:
        resume_hint.resume(folder.path.absolute())
        _connect(session, spec, address, on_event)
        from hybrid_sweep.cluster.session import go_on

        return go_on(folder, spec, address, session.close, retry_failed, on_event)


def _claimed(claim: ExitStack, spec: SweepSpec, out: Path | None) -> Path:
    """Hold the results folder for this sweep, before anything is trained for it; return its path.

    Raises:
        UserError: the folder that is asked for is taken, or no folder can be made.
    """
    if out is not None:
        path = user_path(out).absolute()
        claim.enter_context(SweepFolder.claimed(path))
        return path
    first = Path("results").absolute() / f"{spec.name}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    for path in chain([first], (first.with_name(f"{first.name}-{number}") for number in count(2))):
        with suppress(Taken):  # by a sweep that began in the same second
            claim.enter_context(SweepFolder.claimed(path))
            return path
    raise AssertionError("count does not end")


def _validate(spec: SweepSpec) -> None:
    """Refuse what no cluster is needed to see; each look imports what it takes."""
    if spec.early_stopping and spec.steps:
        from hybrid_sweep.search.halving import validate_rungs

        validate_rungs(spec, spec.steps)
    _validate_storage(spec)
    if spec.sampler != "grid":
        from hybrid_sweep.search.mask import validate_mask, wants_curvature

        if not wants_curvature(spec):
            validate_mask(spec)
    if spec.warm_start:
        from hybrid_sweep.results import ResultsFolder
        from hybrid_sweep.search.warm_start import known_points

        for earlier in spec.warm_start:
            known_points(ResultsFolder.open(earlier), spec)


def _validate_storage(spec: SweepSpec) -> None:
    if spec.storage is not None:
        from hybrid_sweep.search.storage import StorageView

        StorageView.validate_reachable(spec.storage)


def _connect(session: ExitStack, spec: SweepSpec, address: str | None, on_event: OnEvent) -> None:
    on_event(Note("starting Ray" if address is None else f"connecting to Ray at {address}"))
    session.enter_context(connected(spec, address, meanwhile=_import_session))


def _import_session() -> None:
    """Import what a session needs, most of which is not needed to start Ray."""
    import hybrid_sweep.cluster.session  # noqa: F401


def _ignore_event(event: SweepEvent) -> None:
    """Take an event without a listener."""
