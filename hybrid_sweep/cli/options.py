"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

SCALE = "Where and how much (instead of what the sweep file says)"
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="A results folder.", show_default=False)]
Sweep = Annotated[
    str,
    typer.Argument(metavar="DIR|JOB", help="A results folder, or with --address a job.", show_default=False),
]
Job = Annotated[str, typer.Argument(metavar="JOB", help="As submit has said it.", show_default=False)]
Jobs = Annotated[
    str | None,
    typer.Option(metavar="URL", help="The Jobs server of a Ray cluster, for a job.", show_default=False),
]
JobsNeeded = Annotated[
    str,
    typer.Option(metavar="URL", envvar="RAY_API_SERVER_ADDRESS", help="The Jobs server of a Ray cluster."),
]


Workload = Annotated[
    str | None,
    typer.Option(
        metavar="FILE:Class",
        help="Where the workload is now, if it was moved apart from the results.",
        show_default=False,
    ),
]


def scale(help: str) -> Any:
    """Return an option that replaces a field of the sweep file."""
    return typer.Option(help=help, show_default=False, rich_help_panel=SCALE)
