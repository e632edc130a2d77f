"""Commands that look at a results folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from hybrid_sweep.cli.options import Folder, Jobs, Sweep

LOOK = "Look at results"
app = typer.Typer()


@app.command(rich_help_panel=LOOK)
def status(
    what: Sweep,
    address: Jobs = None,
    format: Annotated[Literal["text", "json"], typer.Option(help="How to print it.")] = "text",
) -> None:
    """Say how far a sweep is, also while it runs and after it was killed."""
    from hybrid_sweep.cli import render

    if address:
        from hybrid_sweep.cluster.jobs import Jobs as RayJobs

        render.print_job(RayJobs(address).status(what), format)
        return
    from hybrid_sweep.analysis.status import sweep_status
    from hybrid_sweep.store.folder import SweepFolder

    folder = SweepFolder.open(what)
    render.print_status(sweep_status(folder, alive=folder.is_driven), format)


@app.command(rich_help_panel=LOOK)
def replay(folder: Folder) -> None:
    """Ask every point of a sweep again, without training: the search must choose the same ones."""
    from hybrid_sweep.driver.sweep import replayed
    from hybrid_sweep.results import ResultsFolder

    print(f"{replayed(ResultsFolder.open(folder))} points asked again, every one as in the journal.")


@app.command(rich_help_panel=LOOK)
def pareto(
    folder: Folder,
    min_quality: Annotated[float, typer.Option(min=0.0, metavar="Q", help="Leave out points below.")] = 0.0,
    format: Annotated[Literal["table", "csv", "json"], typer.Option(help="How to print it.")] = "table",
) -> None:
    """Print the Pareto front of a sweep, also while it runs."""
    if format == "table":
        from hybrid_sweep.analysis.front_rows import front_rows
        from hybrid_sweep.cli import render
        from hybrid_sweep.store.folder import SweepFolder

        rows = [row for row in front_rows(SweepFolder.open(folder)) if row["quality"] >= min_quality]
        console = render.console()
        console.print(render.front_table(rows, console.width) if rows else "No point is on the front.")
    else:
        from hybrid_sweep.analysis.export import write_table
        from hybrid_sweep.results import ResultsFolder

        front = ResultsFolder.open(folder).table("front")
        write_table(front[front["quality"] >= min_quality], format, None)


@app.command(rich_help_panel=LOOK)
def report(folder: Folder) -> None:
    """Rebuild every table, the picture and the report from the journal, and print the verdict."""
    from hybrid_sweep.errors import safe
    from hybrid_sweep.results import ResultsFolder

    results = ResultsFolder.open(folder)
    trials = results.trials()
    results.export_all(trials=trials)
    print(safe("\n".join([*results.analyzer_lines(trials), f"Report: {results.report_path}"])))


@app.command(rich_help_panel=LOOK)
def verdict(
    folder: Folder,
    format: Annotated[Literal["text", "json"], typer.Option(help="How to print it.")] = "text",
) -> None:
    """Say in a paragraph whether prediction pays, against what, and which settings to copy."""
    from hybrid_sweep.cli import render
    from hybrid_sweep.results import ResultsFolder

    render.print_verdict(ResultsFolder.open(folder).verdict(), format)


@app.command(rich_help_panel=LOOK)
def export(
    folder: Folder,
    format: Annotated[
        Literal["csv", "json", "parquet", "toml"] | None,
        typer.Option(
            help="csv, json or parquet for a table; toml or json for --trial.", show_default="csv, toml"
        ),
    ] = None,
    what: Annotated[
        Literal["trials", "front", "steps", "claims"],
        typer.Option(help="Which table; claims: the original design's figures beside this sweep's."),
    ] = "trials",
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
    from hybrid_sweep.cli import render
    from hybrid_sweep.results import ResultsFolder

    results = ResultsFolder.open(folder)
    if trial is None:
        results.export(what, format or "csv", to)
    else:
        render.write_config(results.trial_config(trial), format or "toml", to)
