"""Commands that run a sweep as a job of a Ray cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hybrid_sweep.cli.options import Job, JobsNeeded

CLUSTER = "On a cluster, as a Ray job"
app = typer.Typer()


@app.command(rich_help_panel=CLUSTER, context_settings={"ignore_unknown_options": True})
def submit(
    sweep: Annotated[str, typer.Argument(metavar="SWEEP", help="As of run.", show_default=False)],
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[OPTIONS OF run]", show_default=False)
    ] = None,
    address: JobsNeeded = "http://127.0.0.1:8265",
    results: Annotated[
        str, typer.Option(metavar="DIR", help="Where on the head node results folders are made.")
    ] = "~/hybrid-sweep-results",
) -> None:
    """Run a sweep as a job of a Ray cluster.

    [dim]hybrid-sweep submit grid60 --address http://HEAD:8265 --repeats 3[/]
    """
    from hybrid_sweep.cluster.jobs import Jobs as RayJobs

    job = RayJobs(address).submit(sweep, arguments or [], results=results)
    where = f"{job} --address {address}"
    print(f"Submitted as {job}. Next:")
    print(*(f"  hybrid-sweep {verb} {where}" for verb in ("status", "logs", "stop", "fetch")), sep="\n")


@app.command(rich_help_panel=CLUSTER)
def logs(
    job: Job,
    address: JobsNeeded = "http://127.0.0.1:8265",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Until the job ends.")] = False,
) -> None:
    """Print what a job has printed."""
    from hybrid_sweep.cluster.jobs import Jobs as RayJobs
    from hybrid_sweep.errors import safe

    for text in RayJobs(address).logs(job, follow=follow):
        print(safe(text), end="", flush=True)


@app.command(rich_help_panel=CLUSTER)
def fetch(
    job: Job,
    address: JobsNeeded = "http://127.0.0.1:8265",
    to: Annotated[
        Path | None, typer.Option(metavar="DIR", help="New folder.", show_default="results/JOB")
    ] = None,
) -> None:
    """Bring a job's results here, also while it runs, and rebuild its tables and report."""
    from hybrid_sweep.cluster.jobs import Jobs as RayJobs

    folder = RayJobs(address).fetch(job, to or Path("results") / job)
    print(f"Results: {folder}")
