"""What keeps a local Ray to its user: a token, the loopback, no metrics, and a folder of its own.

It imports no Ray, for Ray reads where it may listen when it is imported.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache

from hybrid_sweep.cluster.surroundings import folder_for_ray
from hybrid_sweep.errors import UserError

MODE, TOKEN, TOKEN_FILE = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
SEVERAL_MACHINES = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""0 makes Ray, on any system, serve one machine only: every port of it is on 127.0.0.1."""
NO_METRICS = {
    "RAY_enable_metrics_collection": "0",
    "AUTOSCALER_METRIC_PORT": "-1",
    "DASHBOARD_METRIC_PORT": "-1",
}
"""Two servers of metrics that know no switch are given a port that cannot be, and do without."""


_imported_here: set[str] = set()
"""Holds "ray" where Ray was imported with the variables of `private_ray`: another sweep may start here."""


@contextmanager
def private_ray() -> Iterator[None]:
    """Have a Ray that starts within answer only to holders of its token, on 127.0.0.1.

    A script that has imported Ray has fixed by that whether it asks for a token, and where it listens.

    Raises:
        UserError: Ray's folder finds no place, or Ray was imported without a word on tokens.
    """
    values = {**NO_METRICS, **token()}
    if "ray" not in sys.modules:
        values[SEVERAL_MACHINES] = "0"
        _imported_here.add("ray")
    with folder_for_ray(), environment(values):
        yield


def token() -> dict[str, str]:
    """Return the variables by which Ray asks for a token: the user's own, else a random one.

    Ray's core reads a token once a process, so it is the same one for as long as the process lives.

    Raises:
        UserError: Ray was imported without a word on tokens, so that any user of the machine could join.
    """
    if "ray" in sys.modules and not _imported_here and os.environ.get(MODE) != "token":
        if os.environ.get(MODE) == "disabled":
            return {}
        raise UserError(
            f"this script has imported Ray without {MODE}, so any user of this machine could run code in "
            f"the sweep: set {MODE}=token before Ray is imported, or import it after the sweep"
        )
    own = {} if os.environ.get(TOKEN) or os.environ.get(TOKEN_FILE) else {TOKEN: _random()}
    return {MODE: "token", **own}


@cache
def _random() -> str:
    return secrets.token_hex(32)


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables within; they are put back as they were."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
