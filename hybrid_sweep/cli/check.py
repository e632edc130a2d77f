"""The command that looks at a workload in seconds, before any sweep."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from hybrid_sweep.cli.options import scale

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hybrid_sweep.measure.preflight import Cost
    from hybrid_sweep.measure.workload_check import Finding
    from hybrid_sweep.spec.sweep import SweepSpec
    from hybrid_sweep.workload import Workload

app = typer.Typer()


@app.command(rich_help_panel="Run")
def check(
    what: Annotated[
        str,
        typer.Argument(
            metavar="FILE:CLASS|SWEEP",
            help="A workload, or a sweep with its workload: a packaged one, or a .yaml file.",
            show_default=False,
        ),
    ],
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="As for `run`. Repeatable.", show_default=False),
    ] = None,
    steps: Annotated[int | None, scale("Logical steps of a run.")] = None,
    device: Annotated[Literal["auto", "cpu", "cuda"] | None, scale("Where trials run.")] = None,
) -> None:
    """Look at a workload before a sweep, in seconds: does it repeat, is it saved whole, what will it cost?

    Exit code 2 where `run` would refuse it.

    [dim]hybrid-sweep check my_model.py:MyModel --steps 5000[/]
    """
    from hybrid_sweep.cli import render

    options: dict[str, Any] = {"steps": steps, "device": device}
    given = {name: value for name, value in options.items() if value is not None}
    spec = _spec(what, changes or [], given)
    console, problems = render.console(), 0
    for found in _findings(spec):
        problems += found.state == "problem"
        console.print(render.finding(found.about, found.state, found.said), soft_wrap=True)
    console.print("It can be run." if not problems else "`hybrid-sweep run` would refuse it.")
    raise typer.Exit(2 if problems else 0)


def _spec(what: str, changes: list[str], given: dict[str, Any]) -> SweepSpec:
    """Return the sweep, or one of a single run where there is but a workload."""
    from hybrid_sweep.spec.files import load_spec, parse_changes
    from hybrid_sweep.spec.sweep import SweepSpec

    changed = {**parse_changes(changes), **given}
    if ":" not in what:
        return load_spec(what, changed)
    point = {"max_predict_steps": [50]}
    alone = {"name": "check", "workload": what, "sampler": "grid", "space": point, "controls": "none"}
    return SweepSpec(**{**alone, **changed})


def _findings(spec: SweepSpec) -> Iterator[Finding]:
    import torch

    from hybrid_sweep.errors import UserError
    from hybrid_sweep.measure.preflight import cost_of, looked, preflight
    from hybrid_sweep.measure.saved_whole import whole
    from hybrid_sweep.measure.workload_builder import WorkloadOrder, own_steps, uncompiled
    from hybrid_sweep.measure.workload_check import Finding, repeats

    if spec.device == "cuda" and not torch.cuda.is_available():
        raise UserError("device=cuda is not available: torch sees no GPU here; use --device cpu")
    device: Literal["cpu", "cuda"] = "cuda" if spec.device != "cpu" and torch.cuda.is_available() else "cpu"
    order = WorkloadOrder.from_spec(spec, device)

    def builds() -> Finding:
        order.build()
        return Finding(about="builds", state="ok", said=f"{spec.workload.name} on {order.device}")

    def costs() -> Iterator[Finding]:
        yield from _costs(spec, workload, cost_of(workload))

    (built,) = looked(builds)
    yield built
    if built.state == "problem":
        return
    workload, good = uncompiled(order.build()), True
    for found in looked(repeats, workload, order.load):
        good = good and found.state != "problem"
        yield found
    if good:  # else the rest would but say so again
        yield from looked(whole, workload)
        yield from preflight(workload, spec.steps or workload.steps, own_steps.get(repr(order)))
    yield from looked(costs)


def _costs(spec: SweepSpec, workload: Workload, cost: Cost) -> Iterator[Finding]:
    """Yield time and memory of a run, and of the sweep."""
    import os

    from rich.filesize import decimal

    from hybrid_sweep.measure.workload_check import Finding
    from hybrid_sweep.search.controls import ablations, controls
    from hybrid_sweep.search.study import Study

    steps = spec.steps or workload.steps
    run = cost.run_seconds(steps, spec.eval_every)
    yield Finding(
        about="time of a run",
        state="ok",
        said=f"a plain step takes {_time(cost.step)}, {cost.loading / cost.step:.0%} of it for its batch, an "
        f"evaluation {_time(cost.evaluation)}: {steps:,} steps take about {_time(run)}",
    )
    points = Study(spec, "", steps).budget
    beside = len(controls(spec, steps, points)) + len(ablations(spec, "", {}))
    runs = (points + beside + 1) * spec.repeats
    at_once = min(spec.concurrency or os.cpu_count() or 1, runs)
    if points > 1:
        yield Finding(
            about="time of the sweep",
            state="ok",
            said=f"{runs} runs, {at_once} at once: about {_time(-(-runs // at_once) * run)}, if jumps save "
            "nothing",
        )
    yield Finding(
        about="memory",
        state="ok",
        said=f"{decimal(cost.peak_bytes)} a worker here, {decimal(cost.peak_bytes * at_once)} for {at_once}",
    )


def _time(seconds: float) -> str:
    """Return a duration with its unit."""
    for unit, size in (("h", 3600.0), ("min", 60.0), ("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"
