"""The question before the code of a results folder from elsewhere runs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

    from hybrid_sweep.results import ResultsFolder
    from hybrid_sweep.spec.sweep import SweepSpec

Trust = Annotated[
    bool,
    typer.Option("--trust", help="Run the folder's code, also where this user did not start it here."),
]


def trusted(folder: ResultsFolder, spec: Callable[[], SweepSpec], workload: str | None, trust: bool) -> bool:
    """Return whether the user trusts the code of a folder: by `--trust`, or asked in a terminal."""
    from hybrid_sweep.driver.moved import with_workload
    from hybrid_sweep.driver.origin import untrusted

    if trust or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return trust
    question = untrusted(folder, with_workload(spec(), folder, workload))
    return question is not None and typer.confirm(f"{question}. Run it?", default=False, err=True)
