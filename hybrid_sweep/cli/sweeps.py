"""Commands that list, run, resume, stop and confirm sweeps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hybrid_sweep.cli.options import Folder, Jobs, Sweep, Workload, scale
from hybrid_sweep.cli.trusting import Trust, trusted

if TYPE_CHECKING:
    from hybrid_sweep.driver.sweep import SweepOutcome
    from hybrid_sweep.results import ResultsFolder

RUN = "Run"
app = typer.Typer()


@app.command("list", rich_help_panel=RUN)
def list_content(
    what: Annotated[
        Literal["sweeps", "workloads", "presets"] | None,
        typer.Argument(help="One kind only.", show_default=False),
    ] = None,
) -> None:
    """List the sweeps, workloads and presets that come with the package."""
    from hybrid_sweep.cli import render
    from hybrid_sweep.spec.files import load_spec, packaged_sweeps
    from hybrid_sweep.trainer.presets import PRESETS
    from hybrid_sweep.workload import packaged_workloads

    console = render.console()
    if what in (None, "sweeps"):
        console.print(render.sweeps({name: load_spec(name) for name in packaged_sweeps()}))
    if what in (None, "workloads"):
        console.print(render.workloads(packaged_workloads()))
    if what in (None, "presets"):
        console.print(render.presets(PRESETS))


@app.command(rich_help_panel=RUN)
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
        bool, typer.Option("--remeasure", help="Measure the cost of each kind of work again.")
    ] = False,
    no_share: Annotated[
        bool,
        typer.Option(
            "--no-share", help="Train references and controls again, and keep none for later sweeps."
        ),
    ] = False,
    steps: Annotated[int | None, scale("Logical steps of a run.")] = None,
    seed: Annotated[int | None, scale("The first seed.")] = None,
    repeats: Annotated[int | None, scale("How many seeds each point runs with.")] = None,
    concurrency: Annotated[int | None, scale("Trials at once.")] = None,
    device: Annotated[Literal["auto", "cpu", "cuda"] | None, scale("Where trials run.")] = None,
    compile: Annotated[
        Literal["none", "default", "reduce-overhead"] | None,
        scale("Mode of torch.compile for the loss of every arm; reduce-overhead is CUDA graphs on a GPU."),
    ] = None,
    gpus_per_trial: Annotated[float | None, scale("Share of one GPU that a trial takes.")] = None,
    pack: Annotated[
        str | None,
        scale("Trials that a worker trains at once, as one computation; auto measures whether it pays."),
    ] = None,
    sampler: Annotated[
        Literal["tpe", "gp", "nsga2", "random", "grid"] | None, scale("Who chooses the points.")
    ] = None,
    trials: Annotated[int | None, scale("Points in all.")] = None,
    storage: Annotated[str | None, scale("Optuna storage URL that mirrors the study.")] = None,
    warm_start: Annotated[
        list[Path] | None, scale("An earlier results folder to learn from. Repeatable.")
    ] = None,
    address: Annotated[str | None, scale("An existing Ray cluster; else a local one starts.")] = None,
) -> None:
    """Run a sweep and show its Pareto front.

    [dim]hybrid-sweep run grid60 --set workload.data=mnist --repeats 3[/]

    [dim]hybrid-sweep run my_sweep.yaml --dry-run[/]
    """
    from hybrid_sweep.cli import render
    from hybrid_sweep.paths import user_path
    from hybrid_sweep.search.space import grid
    from hybrid_sweep.spec.files import load_spec, parse_changes
    from hybrid_sweep.store.folder import SweepFolder

    earlier = [str(user_path(folder).absolute()) for folder in warm_start or []]
    options = {
        "steps": steps,
        "seed": seed,
        "repeats": repeats,
        "concurrency": concurrency,
        "device": device,
        "compile": compile,
        "gpus_per_trial": gpus_per_trial,
        "pack": pack,
        "sampler": sampler,
        "trials": trials,
        "storage": storage,
        "warm_start": earlier or None,
        "share": False if no_share else None,
    }
    given = {field: value for field, value in options.items() if value is not None}
    spec = load_spec(sweep, {**parse_changes(changes or []), **given})
    if spec.sampler == "grid":
        grid(spec)  # refuses a value out of range now, and not after the start of Ray
    if out is not None:
        SweepFolder.validate_free(out)
    console = render.console()
    if dry_run:
        console.print(render.plan(spec, out))
        return
    from hybrid_sweep.cli.progress import SweepProgress
    from hybrid_sweep.cluster.launch import run_sweep

    with SweepProgress(spec, console) as progress:
        outcome = run_sweep(
            spec, out, address=address, keep_models=keep_models, remeasure=remeasure, on_event=progress
        )
    _end(outcome)


@app.command(rich_help_panel=RUN)
def resume(
    folder: Folder,
    trials: Annotated[
        int | None, typer.Option(help="Points in all, more than before.", show_default=False)
    ] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Also run again what failed.")] = False,
    workload: Workload = None,
    trust: Trust = False,
    concurrency: Annotated[int | None, scale("Trials at once.")] = None,
    storage: Annotated[str | None, scale("Optuna storage URL that mirrors the study.")] = None,
    address: Annotated[str | None, scale("An existing Ray cluster; else a local one starts.")] = None,
) -> None:
    """Go on with a sweep that was interrupted or killed, or give it more trials.

    [dim]hybrid-sweep resume DIR --trials 200[/]
    """
    from hybrid_sweep.cli import render
    from hybrid_sweep.cli.progress import SweepProgress
    from hybrid_sweep.cluster.launch import resume_sweep
    from hybrid_sweep.driver.sweep import recorded_spec
    from hybrid_sweep.results import ResultsFolder

    options = {"trials": trials, "concurrency": concurrency, "storage": storage}
    changes = {field: value for field, value in options.items() if value is not None}
    opened = ResultsFolder.open(folder)
    spec = recorded_spec(opened, changes)
    trust = trusted(opened, lambda: spec, workload, trust)
    with SweepProgress(spec, render.console()) as progress:
        outcome = resume_sweep(
            folder,
            changes=changes,
            address=address,
            retry_failed=retry_failed,
            workload=workload,
            trust=trust,
            on_event=progress,
        )
    _end(outcome)


@app.command(rich_help_panel=RUN)
def stop(what: Sweep, address: Jobs = None) -> None:
    """Wind a sweep down from outside: its runs keep their checkpoints, `resume` goes on."""
    if address:
        from hybrid_sweep.cluster.jobs import Jobs as RayJobs

        RayJobs(address).stop(what)
        print(f"{what} is asked to stop; see: hybrid-sweep status {what} --address {address}")
        return
    from hybrid_sweep.store.folder import SweepFolder

    SweepFolder.open(what).request_stop()
    print(f"{what} is asked to stop; then go on with: hybrid-sweep resume {what}")


@app.command(rich_help_panel=RUN)
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
    workload: Workload = None,
    trust: Trust = False,
) -> None:
    """Run the front's best points and their controls on fresh seeds, alone; started again, it goes on.

    [dim]hybrid-sweep confirm DIR --seeds 10 --points 1[/]
    """
    from hybrid_sweep.cli import render
    from hybrid_sweep.cli.confirming import ConfirmProgress
    from hybrid_sweep.confirm.sweep import confirm_sweep
    from hybrid_sweep.driver.sweep import recorded_spec
    from hybrid_sweep.results import ResultsFolder

    console, opened = render.console(), ResultsFolder.open(folder)
    trust = trusted(opened, lambda: recorded_spec(opened), workload, trust)
    with ConfirmProgress(console) as progress:
        found = confirm_sweep(
            folder,
            seeds=seeds,
            points=points,
            min_quality=min_quality,
            arms=arms,
            workload=workload,
            trust=trust,
            on_progress=progress,
        )
    if found is None:
        print(f"Interrupted: what is finished is kept. Go on with: hybrid-sweep confirm {folder}")
        raise typer.Exit(130)
    console.print(render.confirmed(found))
    render.print_verdict(ResultsFolder.open(folder).verdict(), "text")


def _end(outcome: SweepOutcome[ResultsFolder]) -> None:
    """Show how a session ended, and exit with its code."""
    from hybrid_sweep.cli import render

    console = render.console()
    end = render.ending(outcome.folder, outcome.counts, outcome.interrupted, console.width)
    console.print(end, crop=False)
    raise typer.Exit(130 if outcome.interrupted else 1 if outcome.counts.get("failed") else 0)
