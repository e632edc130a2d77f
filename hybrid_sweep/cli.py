"""The front door: `hybrid-sweep`, one function a command, no logic.

Exit codes: 0; 1 where a trial failed or was lost; 2 for a mistake of the user; 130 after Ctrl-C.
A command imports what it needs when it runs, so that `--help` and `list` answer at once.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from hybrid_sweep.driver.sweep import SweepOutcome

app = typer.Typer(
    name="hybrid-sweep",
    help="When does predicted training really pay? Sweeps of a hybrid predictive trainer, scored honestly.",
    epilog="First look: [cyan]hybrid-sweep run quick[/]. The seed's grid: [cyan]hybrid-sweep run grid60[/].",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

LOOK = "Look at results"
CLUSTER = "On a cluster, as a Ray job"
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


def main() -> None:
    """Run the command line; a mistake of the user becomes one sentence and exit code 2."""
    try:
        app()
    except ValueError as error:
        from hybrid_sweep.errors import UserError

        if not isinstance(error, UserError):
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def _show_version(wanted: bool) -> None:
    if wanted:
        from hybrid_sweep.screen import version_line

        print(version_line())
        raise typer.Exit


def _scale(help: str) -> Any:
    """Return an option that replaces a field of the sweep file."""
    return typer.Option(help=help, show_default=False, rich_help_panel=SCALE)


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show versions and exit.")
    ] = False,
) -> None:
    """Options of the program itself."""


@app.command("list", rich_help_panel="Run")
def list_content(
    what: Annotated[
        Literal["sweeps", "workloads", "presets"] | None,
        typer.Argument(help="One kind only.", show_default=False),
    ] = None,
) -> None:
    """List the sweeps, workloads and presets that come with the package."""
    from hybrid_sweep import screen
    from hybrid_sweep.spec import load_spec, packaged_sweeps
    from hybrid_sweep.trainer.config import PRESETS
    from hybrid_sweep.workload import packaged_workloads

    console = screen.console()
    if what in (None, "sweeps"):
        console.print(screen.sweeps({name: load_spec(name) for name in packaged_sweeps()}))
    if what in (None, "workloads"):
        console.print(screen.workloads(packaged_workloads()))
    if what in (None, "presets"):
        console.print(screen.presets(PRESETS))


@app.command(rich_help_panel="Run")
def run(
    sweep: Annotated[
        str,
        typer.Argument(
            metavar="SWEEP", help="A packaged sweep, or the path of a .yaml file.", show_default=False
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="New folder for the results.", show_default="results/SWEEP-TIME"),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would run; write nothing.")] = False,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change any field of the sweep file: workload.data=mnist, space.max_predict_steps=[50,75]. "
            "Repeatable.",
            show_default=False,
        ),
    ] = None,
    keep_models: Annotated[
        Literal["none", "front"], typer.Option(help="Which trained models stay in the results folder.")
    ] = "none",
    remeasure: Annotated[
        bool,
        typer.Option("--remeasure", help="Measure the cost of each kind of work anew."),
    ] = False,
    steps: Annotated[int | None, _scale("Logical steps of a run.")] = None,
    seed: Annotated[int | None, _scale("The first seed.")] = None,
    repeats: Annotated[int | None, _scale("How many seeds each point runs with.")] = None,
    concurrency: Annotated[int | None, _scale("Trials at once.")] = None,
    device: Annotated[Literal["auto", "cpu", "cuda"] | None, _scale("Where trials run.")] = None,
    gpus_per_trial: Annotated[float | None, _scale("Share of one GPU that a trial takes.")] = None,
    sampler: Annotated[
        Literal["tpe", "gp", "nsga2", "random", "grid"] | None, _scale("Who chooses the points.")
    ] = None,
    trials: Annotated[int | None, _scale("Points in all.")] = None,
    storage: Annotated[str | None, _scale("Optuna storage URL that mirrors the study.")] = None,
    warm_start: Annotated[
        list[Path] | None, _scale("An earlier results folder to learn from. Repeatable.")
    ] = None,
    address: Annotated[str | None, _scale("An existing Ray cluster; else a local one starts.")] = None,
) -> None:
    """Run a sweep and show its Pareto front.

    [dim]hybrid-sweep run grid60 --set workload.data=mnist --repeats 3[/]

    [dim]hybrid-sweep run my_sweep.yaml --dry-run[/]
    """
    from hybrid_sweep import screen
    from hybrid_sweep.analysis.folder import ResultsFolder
    from hybrid_sweep.search.space import grid
    from hybrid_sweep.spec import load_spec, parse_changes

    earlier = [str(folder.absolute()) for folder in warm_start or []]
    options = {
        "steps": steps,
        "seed": seed,
        "repeats": repeats,
        "concurrency": concurrency,
        "device": device,
        "gpus_per_trial": gpus_per_trial,
        "sampler": sampler,
        "trials": trials,
        "storage": storage,
        "warm_start": earlier or None,
    }
    given = {field: value for field, value in options.items() if value is not None}
    spec = load_spec(sweep, {**parse_changes(changes or []), **given})
    if spec.sampler == "grid":
        grid(spec)  # refuses a value out of range now, and not after the start of Ray
    if out is not None:
        ResultsFolder.refuse_taken(out)
    console = screen.console()
    if dry_run:
        console.print(screen.plan(spec, out))
        return
    from hybrid_sweep.cluster.launch import run_sweep
    from hybrid_sweep.driver.progress import SweepProgress

    with SweepProgress(spec, console) as progress:
        outcome = run_sweep(
            spec, out, address=address, keep_models=keep_models, remeasure=remeasure, on_event=progress
        )
    _end(outcome)


def _end(outcome: SweepOutcome) -> None:
    """Show how a sitting ended, and exit with its code."""
    from hybrid_sweep import screen

    console = screen.console()
    end = screen.ending(outcome.folder, outcome.counts, outcome.interrupted, console.width)
    console.print(end, crop=False)
    raise typer.Exit(130 if outcome.interrupted else 1 if outcome.counts.get("failed") else 0)


@app.command(rich_help_panel="Run")
def resume(
    folder: Folder,
    trials: Annotated[
        int | None, typer.Option(help="Points in all, more than before.", show_default=False)
    ] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Also run again what failed.")] = False,
    concurrency: Annotated[int | None, _scale("Trials at once.")] = None,
    storage: Annotated[str | None, _scale("Optuna storage URL that mirrors the study.")] = None,
    address: Annotated[str | None, _scale("An existing Ray cluster; else a local one starts.")] = None,
) -> None:
    """Go on with a sweep that was interrupted or killed, or give it more trials.

    [dim]hybrid-sweep resume DIR --trials 200[/]
    """
    from hybrid_sweep import screen
    from hybrid_sweep.analysis.folder import ResultsFolder
    from hybrid_sweep.cluster.launch import resume_sweep
    from hybrid_sweep.driver.progress import SweepProgress
    from hybrid_sweep.driver.sweep import recorded_spec

    options = {"trials": trials, "concurrency": concurrency, "storage": storage}
    changes = {field: value for field, value in options.items() if value is not None}
    spec = recorded_spec(ResultsFolder.open(folder), changes)
    with SweepProgress(spec, screen.console()) as progress:
        outcome = resume_sweep(
            folder, changes=changes, address=address, retry_failed=retry_failed, on_event=progress
        )
    _end(outcome)


@app.command(rich_help_panel="Run")
def stop(what: Sweep, address: Jobs = None) -> None:
    """Wind a sweep down from outside: its runs keep their checkpoints, `resume` goes on."""
    if address:
        from hybrid_sweep.cluster.jobs import Jobs as RayJobs

        RayJobs(address).stop(what)
        print(f"{what} is asked to stop; see: hybrid-sweep status {what} --address {address}")
        return
    from hybrid_sweep.analysis.folder import ResultsFolder

    ResultsFolder.open(what).request_stop()
    print(f"{what} is asked to stop; then go on with: hybrid-sweep resume {what}")


@app.command(rich_help_panel=LOOK)
def status(
    what: Sweep,
    address: Jobs = None,
    format: Annotated[Literal["text", "json"], typer.Option(help="How to print it.")] = "text",
) -> None:
    """Say how far a sweep is, also while it runs and after it was killed."""
    from hybrid_sweep import screen

    if address:
        from hybrid_sweep.cluster.jobs import Jobs as RayJobs

        screen.print_job(RayJobs(address).status(what), format)
        return
    from hybrid_sweep.analysis.folder import ResultsFolder
    from hybrid_sweep.analysis.status import sweep_status

    folder = ResultsFolder.open(what)
    screen.print_status(sweep_status(folder, alive=folder.is_driven), format)


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

    for text in RayJobs(address).logs(job, follow=follow):
        print(text, end="", flush=True)


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


@app.command(rich_help_panel=LOOK)
def replay(folder: Folder) -> None:
    """Ask every point of a sweep again, without training: the search must choose the same ones."""
    from hybrid_sweep.analysis.folder import ResultsFolder
    from hybrid_sweep.driver.sweep import replayed

    print(f"{replayed(ResultsFolder.open(folder))} points asked again, every one as in the journal.")


@app.command(rich_help_panel=LOOK)
def pareto(
    folder: Folder,
    min_quality: Annotated[float, typer.Option(min=0.0, metavar="Q", help="Leave out points below.")] = 0.0,
    format: Annotated[Literal["table", "csv", "json"], typer.Option(help="How to print it.")] = "table",
) -> None:
    """Print the Pareto front of a sweep, also while it runs."""
    from hybrid_sweep import screen
    from hybrid_sweep.analysis.export import write_table
    from hybrid_sweep.analysis.folder import ResultsFolder

    front = ResultsFolder.open(folder).table("front")
    front = front[front["quality"] >= min_quality]
    if format == "table":
        console = screen.console()
        console.print(screen.front_table(front, console.width) if len(front) else "No point is on the front.")
    else:
        write_table(front, format, None)


@app.command(rich_help_panel=LOOK)
def report(folder: Folder) -> None:
    """Rebuild every table, the picture and the report from the journal, and print the verdict."""
    from hybrid_sweep.analysis.folder import ResultsFolder
    from hybrid_sweep.analysis.summary import analyzer_lines

    results = ResultsFolder.open(folder)
    results.export_all()
    print("\n".join([*analyzer_lines(results), f"Report: {results.report_path}"]))


@app.command(rich_help_panel="Run")
def confirm(
    folder: Folder,
    seeds: Annotated[int, typer.Option(metavar="R", help="Fresh seeds, 3 or more.")] = 5,
    points: Annotated[
        int, typer.Option(metavar="K", help="Front points: the best, then other good ones, fastest first.")
    ] = 2,
    min_quality: Annotated[
        float, typer.Option(metavar="Q", help="The quality that counts as good; it sets the target loss.")
    ] = 0.98,
    arms: Annotated[
        Literal["basic", "full"],
        typer.Option(help="Controls: matched learning rate and tuned baseline, or all of them."),
    ] = "basic",
) -> None:
    """Run the front's best points and their controls on fresh seeds, alone; started again, it goes on.

    [dim]hybrid-sweep confirm DIR --seeds 10 --points 1[/]
    """
    from hybrid_sweep import screen
    from hybrid_sweep.analysis.folder import ResultsFolder
    from hybrid_sweep.confirm import confirm_sweep

    console = screen.console()
    with screen.ConfirmProgress(console) as progress:
        found = confirm_sweep(
            folder, seeds=seeds, points=points, min_quality=min_quality, arms=arms, tell=progress
        )
    if found is None:
        print(f"Interrupted: what is finished is kept. Go on with: hybrid-sweep confirm {folder}")
        raise typer.Exit(130)
    console.print(screen.confirmed(found))
    screen.print_verdict(ResultsFolder.open(folder).verdict(), "text")


@app.command(rich_help_panel=LOOK)
def verdict(
    folder: Folder,
    format: Annotated[Literal["text", "json"], typer.Option(help="How to print it.")] = "text",
) -> None:
    """Say in a paragraph whether prediction pays, against what, and which settings to copy."""
    from hybrid_sweep import screen
    from hybrid_sweep.analysis.folder import ResultsFolder

    screen.print_verdict(ResultsFolder.open(folder).verdict(), format)


@app.command(rich_help_panel=LOOK)
def export(
    folder: Folder,
    format: Annotated[
        Literal["csv", "json", "parquet", "toml"] | None,
        typer.Option(
            help="csv, json or parquet for a table; toml or json for --trial.", show_default="csv, toml"
        ),
    ] = None,
    what: Annotated[Literal["trials", "front", "steps"], typer.Option(help="Which table.")] = "trials",
    trial: Annotated[
        str | None, typer.Option(metavar="ID", help="This trial's HybridConfig instead.", show_default=False)
    ] = None,
    to: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where to write.", show_default="standard output")
    ] = None,
) -> None:
    """Export a table, or the configuration of one trial.

    [dim]hybrid-sweep export DIR --what front --format parquet --to front.parquet[/]

    [dim]hybrid-sweep export DIR --trial H075_I15_C0.60 --format toml[/]
    """
    from hybrid_sweep import screen
    from hybrid_sweep.analysis.folder import ResultsFolder

    results = ResultsFolder.open(folder)
    if trial is None:
        results.export(what, format or "csv", to)
    else:
        screen.write_config(results.trial_config(trial), format or "toml", to)
