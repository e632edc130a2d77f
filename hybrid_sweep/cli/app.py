"""The program: its own options, its commands, and what it makes of a mistake of the user."""

from __future__ import annotations

import atexit
import gc
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from hybrid_sweep.cli.cache import app as cache
from hybrid_sweep.cli.check import app as check
from hybrid_sweep.cli.jobs import app as jobs
from hybrid_sweep.cli.output import Output
from hybrid_sweep.cli.results import app as results
from hybrid_sweep.cli.sweeps import app as sweeps

COLLECT_EVERY = 100_000
"""Allocations from one look for garbage to the next: imports and tables are large, and no garbage."""

TRAINS = ("run", "resume", "confirm")
"""Commands that go on whatever becomes of what they print."""
INTERRUPTED = 130


class _Commands(TyperGroup):
    """The commands; Ctrl-C ends each with one word."""

    def invoke(self, context: Any) -> Any:
        try:
            return super().invoke(context)
        except KeyboardInterrupt:
            print("Interrupted.", file=sys.stderr)
            raise typer.Exit(INTERRUPTED) from None


app = typer.Typer(
    cls=_Commands,
    name="hybrid-sweep",
    help="When does predicted training really pay? Sweeps of a hybrid predictive trainer, scored honestly.",
    epilog="First look: [cyan]hybrid-sweep run quick[/]. Original grid: [cyan]hybrid-sweep run grid60[/].",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
for commands in (sweeps, check, results, jobs, cache):
    app.add_typer(commands)


def main() -> None:
    """Run the command line; a mistake of the user becomes one sentence and exit code 2."""
    atexit.register(gc.freeze)  # else the interpreter looks at all that torch has made, for a second
    output = Output()
    sys.exit(output.code(_run(output)))


def _run(output: Output) -> int:
    """Run one command; return its exit code."""
    try:
        app(obj=output)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1 if end.code else 0
    except (ValueError, RuntimeError) as error:
        from hybrid_sweep.errors import SweepBroken, UserError, one_line

        if not isinstance(error, UserError | SweepBroken):
            raise
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 1 if isinstance(error, SweepBroken) else 2
    return 0


def _show_version(wanted: bool) -> None:
    if wanted:
        from hybrid_sweep.cli.render import version_line

        print(version_line())
        raise typer.Exit


@app.callback()
def _common(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show versions and exit.")
    ] = False,
) -> None:
    """Options of the program itself."""
    if isinstance(context.obj, Output):
        context.obj.trains = context.invoked_subcommand in TRAINS
    if context.invoked_subcommand != "confirm":  # which trains in this process: models go in cycles
        gc.set_threshold(COLLECT_EVERY)
