"""Jobs: sweeps as jobs of a Ray cluster, over its Jobs server, the one port that must be open."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import shlex
import shutil
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from secrets import token_hex
from typing import Any
from urllib.parse import urlsplit

from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from hybrid_sweep.cluster.connection import CONNECT_TIMEOUT_SECONDS, NOT_TRAVELLING
from hybrid_sweep.cluster.job_archive import unpack
from hybrid_sweep.errors import UserError, one_line
from hybrid_sweep.paths import user_path
from hybrid_sweep.results import ResultsFolder
from hybrid_sweep.spec.files import load_spec, packaged_sweeps, parse_changes
from hybrid_sweep.workload import SEPARATOR, travelling

OURS, RESULTS, FETCHED = "hybrid_sweep", "results", "hybrid_sweep_fetched"
"""Keys of a job's metadata: the sweep's name, its results folder; of one that fetches, the job it is for."""

SWEEP_FOLDER = "hybrid_sweep_file"
"""Where in the folder that travels the sweep file is, apart from whatever else is called like it."""

STOP_SECONDS = 120
"""How long a stopped sweep may take to end well; then Ray kills it."""

FETCH_SECONDS = 600.0
POLL_SECONDS = 0.25
CHOSEN_BY_THE_JOB = ("--address", "--out", "--dry-run")
SERVER = "http://HEAD:8265"
ADDRESS_VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")

_EXIT_CODES = {
    1: "a trial failed or was lost, or the sweep broke off: see its logs",
    2: "its arguments were refused: see its logs",
    130: "interrupted: its results are kept",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class JobState:
    """How a job is.

    Attributes:
        job: its id.
        sweep: name of the sweep.
        state: "pending", "running", "stopped", "succeeded" or "failed".
        message: what there is to say about that, in one line.
        results: the results folder on the head node.
        started: when it was submitted.
        ended: when it ended.
    """

    job: str
    sweep: str
    state: str
    message: str
    results: str
    started: datetime | None
    ended: datetime | None


class Jobs:
    """The sweeps on one Ray cluster.

    Args:
        address: of its Jobs server, `http://HOST:8265`; it goes before Ray's environment variables.

    Raises:
        UserError: no Jobs server answers there, or it refuses the token.
    """

    def __init__(self, address: str) -> None:
        self.address = address if "://" in address else f"http://{address}"
        try:
            url = urlsplit(self.address)
            usual = {"http": 80, "https": 443}[url.scheme]
            host, port = url.hostname, url.port or usual
        except (ValueError, KeyError):
            host = None
        if not host:
            raise UserError(f"{address!r} is not the address of a Jobs server: write {SERVER}")
        logging.getLogger("ray").setLevel(logging.ERROR)  # it tells of every package and connection
        with self._answers():
            socket.create_connection((host, port), timeout=CONNECT_TIMEOUT_SECONDS).close()
            with _without(ADDRESS_VARIABLES):
                self._client = JobSubmissionClient(self.address)

    def submit(self, sweep: str, arguments: Sequence[str], *, results: str = "~/hybrid-sweep-results") -> str:
        """Start a sweep on the head node; return the id of its job.

        The user's sweep file and the folder of a workload file travel with it.

        Args:
            sweep: a packaged name, or the path of a YAML file here.
            arguments: further ones of `hybrid-sweep run`.
            results: the folder on the head node in which the results folder is made.

        Raises:
            UserError: no such sweep or workload file, an argument that the job chooses itself, a relative
                results folder, or a workload's folder that is too large to travel.
        """
        for argument in arguments:
            if argument.partition("=")[0] in CHOSEN_BY_THE_JOB:
                raise UserError(f"{argument} cannot be given to a job, which chooses it itself: leave it out")
        if not results.startswith(("/", "~/")):
            raise UserError(f"results={results!r} is nowhere on the head node: begin it with / or ~/")
        changes = _changes(arguments)
        known_here = {k: v for k, v in changes.items() if k == "name" or k.partition(".")[0] == "workload"}
        spec = load_spec(sweep, known_here)
        travel = travelling(spec.workload.name)
        if travel and not (travel[0] / travel[1].rpartition(SEPARATOR)[0]).is_file():
            raise UserError(
                f"no workload file for {spec.workload.name}: check the path, "
                "which is looked for beside the sweep file and in the current folder"
            )
        job = f"{spec.name}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{token_hex(2)}"
        folder = f"{results.rstrip('/')}/{job}"
        with tempfile.TemporaryDirectory(prefix="hybrid-sweep-") as stage:
            there = _stage(Path(stage), sweep, travel[0] if travel else None)
            words = ["python", "-m", "hybrid_sweep", "run", there, *arguments]
            if travel:
                words += ["--set", f"workload.name={travel[1]}"]
            words += ["--address", "auto", "--out"]
            entry = f"{shlex.join(words)} {_shell_path(folder)}"
            environment: dict[str, Any] = {"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS)}}
            if any(Path(stage).iterdir()):
                environment |= {"working_dir": stage, "excludes": NOT_TRAVELLING}
            with self._answers():
                try:
                    self._client.submit_job(
                        # the driver's own working folder, the workload's copy, goes before the job's
                        entrypoint=f"RAY_OVERRIDE_JOB_RUNTIME_ENV=1 {entry}",
                        submission_id=job,
                        runtime_env=environment,
                        metadata={OURS: spec.name, RESULTS: folder},
                    )
                except RuntimeError as error:
                    if travel and "status code 413" in str(error):
                        raise UserError(
                            f"{travel[0]} is too large to travel with the workload (Ray takes 100 MB): "
                            "move its data elsewhere, or name them in a .gitignore"
                        ) from None
                    raise
        return job

    def status(self, job: str) -> JobState:
        """Return how a job is.

        Raises:
            UserError: an unknown job.
        """
        return _state(self._details(job))

    def jobs(self) -> list[JobState]:
        """Return every sweep that this cluster knows, newest first."""
        with self._answers():
            found = [details for details in self._client.list_jobs() if OURS in (details.metadata or {})]
        return [_state(d) for d in sorted(found, key=lambda d: d.start_time or 0, reverse=True)]

    def logs(self, job: str, *, follow: bool = False) -> Iterator[str]:
        """Yield what a job has printed; with `follow`, until it ends.

        Raises:
            UserError: an unknown job, or the connection broke.
        """
        self._details(job)
        with self._answers():
            if follow:
                yield from _each(self._client.tail_job_logs(job))
            else:
                yield self._client.get_job_logs(job)

    def stop(self, job: str) -> None:
        """Ask a job to end; its sweep is wound down as after Ctrl-C, which takes a moment.

        Raises:
            UserError: an unknown job, or one that has ended.
        """
        state = self.status(job)
        with self._answers():
            stopped = self._client.stop_job(job)
        if not stopped:
            raise UserError(f"job {job} has ended already ({state.state}): there is nothing to stop")

    def fetch(self, job: str, to: Path) -> Path:
        """Bring a job's results here, also while it runs, and rebuild the tables; return the folder.

        Args:
            job: its id.
            to: a new or empty folder.

        Raises:
            UserError: an unknown job, one that has not written its manifest yet, a folder that is taken, or
                results that arrived damaged.
        """
        state = self.status(job)
        to = user_path(to)
        ResultsFolder.validate_free(to)
        unpack(self._packed(state), to)
        folder = ResultsFolder.open(to)
        folder.export_all()
        return to

    def _packed(self, state: JobState) -> str:
        """Return the log of a job that packed the results folder."""
        packing = f"{state.job}-fetch-{token_hex(2)}"
        entry = f"python -m hybrid_sweep.cluster.job_archive {_shell_path(state.results)}"
        deadline = time.monotonic() + FETCH_SECONDS
        with self._answers():
            self._client.submit_job(entrypoint=entry, submission_id=packing, metadata={FETCHED: state.job})
            while not (status := self._client.get_job_status(packing)).is_terminal():
                if time.monotonic() > deadline:
                    self._client.stop_job(packing)
                    raise UserError(
                        f"the head node did not pack {state.results} within {FETCH_SECONDS:.0f} s: "
                        "look at the load of the cluster, and fetch again"
                    )
                time.sleep(POLL_SECONDS)
            text = self._client.get_job_logs(packing)
        if status is not JobStatus.SUCCEEDED:
            raise UserError(_no_results(state, text))
        return text

    def _details(self, job: str) -> JobDetails:
        with self._answers():
            try:
                details = self._client.get_job_info(job)
            except RuntimeError as error:
                if "status code 404" not in str(error):
                    raise
                details = None
        if details and OURS in (details.metadata or {}):
            return details
        recent = ", ".join(state.job for state in self.jobs()[:5])
        hint = f"its latest sweeps are {recent}" if recent else "it has run no sweep yet"
        raise UserError(f"{self.address} knows no sweep {job!r}: {hint}")

    @contextmanager
    def _answers(self) -> Iterator[None]:
        """Turn what goes wrong between here and the server into a sentence."""
        try:
            yield
        except UserError:
            raise
        except AuthenticationError:
            raise UserError(
                f"{self.address} refuses the token: set RAY_AUTH_MODE=token, "
                "and RAY_AUTH_TOKEN as the cluster has it"
            ) from None
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            if "Request failed" in str(error):
                raise UserError(
                    f"the Jobs server at {self.address} could not do it: {_short(error)}"
                ) from None
            raise UserError(
                f"no Jobs server of Ray answers at {self.address} ({_short(error)}): give its address, "
                f"{SERVER} (not the port of --address), or start one with docker/start-head.sh"
            ) from None


def _changes(arguments: Sequence[str]) -> dict[str, str]:
    """Return what `--set` changes among the arguments of `run`."""
    given = [a.partition("=")[2] for a in arguments if a.startswith("--set=")]
    given += [after for before, after in pairwise(arguments) if before == "--set"]
    return parse_changes(given)


def _stage(stage: Path, sweep: str, workload: Path | None) -> str:
    """Fill the folder that travels; return what the sweep is called from there."""
    for entry in workload.iterdir() if workload else ():
        (stage / entry.name).symlink_to(entry)
    if sweep in packaged_sweeps():
        return sweep
    path = user_path(sweep)
    (stage / SWEEP_FOLDER).mkdir()
    shutil.copy(path, stage / SWEEP_FOLDER)
    return f"{SWEEP_FOLDER}/{path.name}"


def _shell_path(path: str) -> str:
    """Quote a path for the shell of the head node, all but a leading `~/`, which is that node's to expand."""
    home, slash, rest = path.partition("/")
    return f"~/{shlex.quote(rest)}" if home == "~" and slash else shlex.quote(path)


def _no_results(state: JobState, log: str) -> str:
    """Return why a results folder could not be packed."""
    if not _error_line(log):
        return f"the results of {state.job} cannot be packed: {one_line(log)[-300:]}"
    if state.ended is None:
        return f"job {state.job} ({state.state}) has no results yet: fetch them when its trials have started"
    return (
        f"job {state.job} {state.state} before its first trial, so there is nothing to fetch: {state.message}"
    )


def _state(details: JobDetails) -> JobState:
    metadata = details.metadata or {}
    return JobState(
        job=str(details.submission_id),
        sweep=metadata[OURS],
        state=details.status.value.lower(),
        message=_message(details),
        results=metadata.get(RESULTS, ""),
        started=_time(details.start_time),
        ended=_time(details.end_time),
    )


def _message(details: JobDetails) -> str:
    """Return Ray's message in one line; of a sweep that failed, its own last word."""
    message = details.message or ""
    if details.status is not JobStatus.FAILED:
        return one_line(message)
    said = _error_line(message) or _EXIT_CODES.get(details.driver_exit_code or 0)
    return said or one_line(message)[-300:]


def _error_line(text: str) -> str | None:
    """Return the last sentence to the user in a log."""
    errors = re.findall(r"^error: (.+)$", text, re.MULTILINE)
    return str(errors[-1]).strip() if errors else None


def _time(milliseconds: int | None) -> datetime | None:
    return datetime.fromtimestamp(milliseconds / 1000, UTC) if milliseconds else None


def _short(error: BaseException) -> str:
    return f"{type(error).__name__}: {one_line(error)[:200]}"


@contextmanager
def _without(variables: Sequence[str]) -> Iterator[None]:
    """Hide environment variables for a moment: to Ray they go before the address that the user gives."""
    hidden = {name: os.environ.pop(name) for name in variables if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)


def _each(texts: AsyncIterator[str]) -> Iterator[str]:
    """Yield what an asynchronous iterator does."""

    async def following() -> str | None:
        return await anext(texts, None)

    with asyncio.Runner() as runner:
        while (text := runner.run(following())) is not None:
            yield text
