"""Connecting to Ray: an existing cluster, or a local one for as long as a sweep runs."""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from typing import Any

from hybrid_sweep.cluster.private_ray import private_ray
from hybrid_sweep.cluster.surroundings import name_user
from hybrid_sweep.driver.interrupts import as_interrupts, defer_interrupts, unheard_by_children
from hybrid_sweep.errors import UserError
from hybrid_sweep.paths import user_path
from hybrid_sweep.spec.sweep import SweepSpec
from hybrid_sweep.workload import travelling

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # progress is ours
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",  # of a second reference, where the first one has failed already
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_ROTATION_MAX_BYTES": str(16 * 2**20),  # of each log: a worker that prints much fills no disk
    "RAY_ROTATION_BACKUP_COUNT": "1",
}
FOLDER_VARIABLES = ("HYBRID_SWEEP_DATA", "HYBRID_SWEEP_CACHE")
CONNECT_TIMEOUT_SECONDS = 5.0
NOT_TRAVELLING = [".git", ".venv", "results", "__pycache__"]


@contextmanager
def connected(
    spec: SweepSpec, address: str | None, meanwhile: Callable[[], object] = lambda: None
) -> Iterator[None]:
    """Connect to a cluster, or start a local one for as long as the sweep runs.

    SIGTERM and SIGHUP count as Ctrl-C meanwhile.

    Args:
        spec: the sweep.
        address: of the cluster; None starts a local one.
        meanwhile: what may as well be done in another thread while Ray, which mostly waits, starts.
    """
    os.environ.update(QUIET)
    if address is not None:
        _validate_reachable(address)
    if _is_connected():
        yield
        return
    name_user()
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        for variable in FOLDER_VARIABLES:
            if folder := os.environ.get(variable):
                os.environ[variable] = str(user_path(folder).resolve())  # workers stand in another folder
        options |= {"address": "local", "include_dashboard": False, "num_cpus": _local_cpus(spec)}
    else:
        options["address"] = address
        if travel := travelling(spec.workload.name):
            options["runtime_env"] = {"working_dir": str(travel[0]), "excludes": NOT_TRAVELLING}
    place = private_ray() if address is None else nullcontext()
    with as_interrupts(), _without_lines_of_ray(), place:
        try:
            _start_ray(address, options, meanwhile)
            yield
        finally:
            _end_ray()


def _is_connected() -> bool:
    """Return whether this process has a Ray already, without importing it too early."""
    if "ray" not in sys.modules:
        return False
    import ray

    return bool(ray.is_initialized())


def _start_ray(address: str | None, options: dict[str, Any], meanwhile: Callable[[], object]) -> None:
    with ThreadPoolExecutor(1) as beside:
        import ray  # here, for it reads where it may listen when it is imported

        done = beside.submit(meanwhile)
        try:
            # in the midst of it processes are left, or a lock that others wait for; and a closed terminal
            # tells all of them, which have their end from here
            with defer_interrupts(), unheard_by_children(signal.SIGHUP):
                ray.init(**options)
        except SystemExit:  # of Ray's own handler of SIGTERM
            raise KeyboardInterrupt from None
        except Exception as error:  # Ray has no common one for what may go wrong here
            raise UserError(f"Ray cannot be reached at {address or 'this machine'}: {error}") from None
        done.result()


def nodes() -> list[dict[str, float]]:
    """Return the resources of each node that is alive."""
    import ray

    listed: Callable[[], list[dict[str, Any]]] = ray.nodes
    return [node["Resources"] for node in listed() if node["Alive"]]


def _end_ray() -> None:
    """Shut Ray down without a look for garbage.

    A reference to an object of Ray that another thread frees meanwhile ends the process, without a word.
    """
    import ray

    enabled = gc.isenabled()
    gc.disable()
    try:
        with defer_interrupts():
            ray.shutdown()
    finally:
        if enabled:
            gc.enable()


@contextmanager
def _without_lines_of_ray() -> Iterator[None]:
    """Keep to what we say: a thread of Ray prints of each worker that dies, in colours and many words."""
    before = sys.stdout
    sys.stdout = _WithoutRay(before)
    try:
        yield
    finally:
        if isinstance(sys.stdout, _WithoutRay):
            sys.stdout = before


class _WithoutRay:
    """A stream that takes nothing from threads that are called `ray...`."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write it, unless a thread of Ray does."""
        if threading.current_thread().name.startswith("ray"):
            return len(text)
        return int(self._stream.write(text) or 0)


def _validate_reachable(address: str) -> None:
    """Knock at `host:port` first: Ray itself tries for minutes.

    Raises:
        UserError: no server answers there.
    """
    host, _, port = address.rpartition(":")
    if "/" in host or not (host and port.isdecimal()):
        return  # "auto", "ray://...": Ray's to judge
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_TIMEOUT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise UserError(
            f"no Ray answers at {address} ({error}): start one there, or leave --address out"
        ) from None


def _local_cpus(spec: SweepSpec) -> int:
    """Return the CPUs that a local Ray is to have: a core each, or one a trial where more are asked for."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(cores, spec.concurrency or 1) if spec.pack == 1 else cores
