"""Commands that look at the cache of this machine and empty it."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

commands = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")
app = typer.Typer()
app.add_typer(
    commands,
    name="cache",
    rich_help_panel="On this machine",
    help="List or clear what sweeps keep for later ones: references, curvatures, controls, unit costs.",
)


@commands.command("ls")
def list_entries(
    format: Annotated[Literal["text", "json"], typer.Option(help="How to print it.")] = "text",
) -> None:
    """List what is kept, by kind: entries, size, newest use."""
    from hybrid_sweep.cli import render
    from hybrid_sweep.measure.cache import Cache

    render.print_cache(Cache(), format)


@commands.command()
def clear(
    kind: Annotated[
        str | None, typer.Argument(help="One kind only, as ls names it.", show_default=False)
    ] = None,
) -> None:
    """Remove what is kept; later sweeps train and measure it again."""
    from hybrid_sweep.measure.cache import Cache

    removed = Cache().clear(kind)
    print(f"{removed} {'entry' if removed == 1 else 'entries'} removed.")
