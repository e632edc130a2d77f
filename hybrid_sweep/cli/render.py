"""What the commands show: lists, the plan of a sweep, its front and its end."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from rich import box
from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.filesize import decimal
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from hybrid_sweep.errors import UserError, safe
from hybrid_sweep.terminal import PlainConsole

if TYPE_CHECKING:
    from hybrid_sweep.analysis.comparison import Confirmation
    from hybrid_sweep.analysis.status import SweepStatus
    from hybrid_sweep.analysis.verdict import Verdict
    from hybrid_sweep.cluster.jobs import JobState
    from hybrid_sweep.measure.cache import Cache
    from hybrid_sweep.results import ResultsFolder
    from hybrid_sweep.spec.sweep import SweepSpec
    from hybrid_sweep.trainer.config import HybridConfig

WIDTH_WITHOUT_TERMINAL = 120
NARROW = 104  # a screen below this shows the front without the columns of ONLY_WHERE_WIDE
USUAL_ID = 16  # characters; longer ids, which say more, need as much more of the screen
FAILURES_SHOWN = 5
IDS_SHOWN = 500  # of a plan; wider columns take time that grows faster than their number
FRONT_COLUMNS = {  # column of trials.csv -> its heading
    "trial_id": "trial",
    "seed": "seeds",
    "max_predict_steps": "H",
    "correction_interval": "I",
    "confidence_threshold": "thres-\nhold",
    "speedup": "speedup",
    "speedup_counted": "speedup\ncounted",
    "quality": "quality",
    "quality_vs_lr_matched": "vs\nlr × m",
    "quality_vs_truncated": "vs\ntrunc.",
    "quality_vs_frozen": "vs\nfrozen",
    "backward_reduction_pct": "backward\nsaved %",
    "realised_horizon_mean": "realised\nhorizon",
}
INTERVAL = "\n± 95 %"
ONLY_WHERE_WIDE = ("seed", "max_predict_steps", "correction_interval", "confidence_threshold")
NARROWEST = 88  # below this the column of FIRST_TO_GO is left out too
FIRST_TO_GO = "realised_horizon_mean"


def console() -> Console:
    """Return a console on standard output, wide enough for the tables where there is no terminal."""
    usual = PlainConsole()
    return usual if usual.is_terminal else PlainConsole(width=WIDTH_WITHOUT_TERMINAL)


def version_line() -> str:
    """Return the versions that a report of a problem should name."""
    names = ("hybrid-sweep", "torch", "ray")
    return ", ".join(f"{name} {_version(name)}" for name in names)


def sweeps(specs: Mapping[str, SweepSpec]) -> Table:
    """Return the sweeps, one a row."""
    from hybrid_sweep.search.space import grid

    table = _table("sweep", "points", "steps", "what it is")
    for name, spec in specs.items():
        steps = str(spec.steps or "the workload's")
        points = str(spec.budget(len(grid(spec)) if spec.sampler == "grid" else 0))
        table.add_row(Text(name, "bold"), points, steps, spec.about)
    return table


def workloads(about: Mapping[str, str]) -> Table:
    """Return the workloads, one a row."""
    table = _table("workload", "what it is")
    for name, line in about.items():
        table.add_row(Text(name, "bold"), line)
    return table


def presets(configs: Mapping[str, HybridConfig]) -> Table:
    """Return the presets, one a row, with every setting in which they differ."""
    values = {name: config.model_dump() for name, config in configs.items()}
    fields = [field for field in next(iter(values.values())) if len({v[field] for v in values.values()}) > 1]
    table = _table("preset")
    for field in fields:
        table.add_column(field.replace("_", "\n"), justify="right", vertical="bottom")
    for name, config in values.items():
        table.add_row(Text(name, "bold"), *(str(config[field]) for field in fields))
    return table


def finding(about: str, state: str, said: str) -> Text:
    """Return what a look at a workload has found, in a line."""
    colour = {"ok": "green", "note": "yellow", "problem": "red"}[state]
    return Text.assemble((f"{state:8}", f"bold {colour}"), (f"{about:18} ", "cyan"), said)


def plan(spec: SweepSpec, out: Path | None) -> RenderableType:
    """Return everything that a run of the sweep would do; the workload is built once, to see that it can be.

    Raises:
        UserError: where the sweep or its workload could not run.
    """
    from hybrid_sweep.credentials import harmless, masked
    from hybrid_sweep.search.controls import ablations, controls
    from hybrid_sweep.search.halving import validate_rungs
    from hybrid_sweep.search.mask import validate_mask, wants_curvature
    from hybrid_sweep.search.space import given, grid
    from hybrid_sweep.search.study import Study
    from hybrid_sweep.spec.axes import described, few
    from hybrid_sweep.user_code import whole_keywords
    from hybrid_sweep.workload import load_workload

    measured = wants_curvature(spec)
    if not measured:
        validate_mask(spec)
    workload = load_workload(spec.workload.name, **whole_keywords(spec.workload.keywords))
    steps = spec.steps or workload.steps
    validate_rungs(spec, steps)
    count = Study(spec, "", steps).budget
    points = grid(spec)[: max(count - len(list(given(spec))), 0)] if spec.sampler == "grid" else []
    keywords = ", ".join(f"{key}={value}" for key, value in harmless(spec.workload.keywords).items())
    seeds = f"{spec.repeats} seed{'s' if spec.repeats > 1 else ''}"
    own = [f"points given: {len(spec.points)}"] if spec.points else []
    beside = len(controls(spec, steps, count)) + len(ablations(spec, "", {}))
    rows = {
        "workload": f"{spec.workload.name}, found and loaded",
        "with": keywords or "no keywords",
        "steps": f"{steps} a run",
        "seeds": few(spec.seeds),
        "sampler": spec.sampler,
        "runs": f"{count} points × {seeds} = {count * spec.repeats}, and a reference run a seed",
        "controls": f"{spec.controls}: {beside} × {seeds} = {beside * spec.repeats}" if beside else "none",
        **{field: f"{value} (fixed)" for field, value in spec.trainer.items()},
        **{field: described(axis) for field, axis in spec.space.items()},
        "mask": "by η·λ_max, measured along plain training first" if measured else "",
        "tried first": _listed([*spec.presets, *own]),
        "constraints": _listed(f"{name} {value}" for name, value in spec.constraints if value is not None),
        "early stopping": _listed(f"{name} {value:.3g}" for name, value in spec.early_stopping or ()),
        "ends": f"when {spec.stop_when_flat} points add nothing" if spec.stop_when_flat else "",
        "reports": f"every {spec.report_every} steps" if spec.report_every > 1 else "",
        "learns from": _listed(spec.warm_start),
        "mirrored to": masked(spec.storage) if spec.storage else "",
        "device": spec.device,
        "at once": str(spec.concurrency or "one a core, or one a GPU share"),
        "compiled": f"torch.compile, mode {spec.compile}" if spec.compile != "none" else "",
        "packed": f"{spec.pack} in a worker" if spec.pack != 1 else "",
        "compared by": f"{spec.metric}, {spec.mode or 'max'}" if spec.metric else "",
        "front of": f"{spec.speedup_column} and quality",
        "results": str(out or Path("results", f"{spec.name}-<time>")),
    }
    grid_of_rows = Table.grid(padding=(0, 3))
    grid_of_rows.add_column(style="cyan", no_wrap=True)
    for name, text in rows.items():
        if text:
            grid_of_rows.add_row(name, Text(text))
    rest = [f"and {len(points) - IDS_SHOWN:,} more"] if len(points) > IDS_SHOWN else []
    shown = [*(point.trial_id for point in points[:IDS_SHOWN]), *rest]
    ids = Columns([Text(text, "dim") for text in shown], padding=(0, 2))
    title = Text.assemble((spec.name, "bold"), f"  {spec.about}")
    indented = [Padding(part, (1, 0, 0, 2), expand=False) for part in (grid_of_rows, ids)]
    return Group(title, *indented, "", "A dry run: nothing was trained, nothing was written.")


def print_status(status: SweepStatus, format: str) -> None:
    """Print how far a sweep is."""
    from hybrid_sweep.analysis.status import status_lines

    print(
        json.dumps(status.to_dict(), indent=1) if format == "json" else safe("\n".join(status_lines(status)))
    )


def print_job(job: JobState, format: str) -> None:
    """Print how a job is."""
    rows = {name: str(value) for name, value in asdict(job).items() if value is not None}
    if format == "json":
        print(json.dumps(rows, indent=1))
        return
    width = max(map(len, rows))
    print(safe("\n".join(f"{name:{width}}  {value}" for name, value in rows.items())))


def front_table(front: Sequence[Mapping[str, Any]], width: int) -> Table:
    """Return the rows of a Pareto front (`front_rows`) as a table for a screen of `width` characters."""
    from hybrid_sweep.analysis.intervals import too_few
    from hybrid_sweep.store.columns import TRIAL_COLUMNS

    digits = {column.name: column.digits for column in TRIAL_COLUMNS}
    longest = max(len(row["trial_id"]) for row in front)
    wide = width - max(longest - USUAL_ID, 0) >= NARROW
    shown = [name for name in FRONT_COLUMNS if wide or name not in ONLY_WHERE_WIDE]
    shown = [name for name in shown if width >= NARROWEST or name != FIRST_TO_GO]
    shown = [name for name in shown if not all(_is_missing(row[name]) for row in front)]
    if not any("," in row["seed"] for row in front):  # one seed each: nothing to tell
        shown = [name for name in shown if name != "seed"]
    table = _table()
    for name in shown:
        text = name in ("trial_id", "seed")
        heading = FRONT_COLUMNS[name] + (
            INTERVAL if not _is_missing(front[0].get(f"{name}_low", math.nan)) else ""
        )
        whole = text and longest <= USUAL_ID
        table.add_column(heading, justify="left" if text else "right", no_wrap=whole, overflow="fold")
    if few := too_few(max(row["seed"].count(",") + 1 for row in front)):
        table.caption = few
    for row in front:
        table.add_row(*(_cell(row, name, digits[name]) for name in shown))
    return table


def ending(folder: ResultsFolder, counts: Mapping[str, int], interrupted: bool, width: int) -> RenderableType:
    """Return the end of a sweep: its front, its counts, the verdict, and what to type next."""
    from hybrid_sweep.analysis.front_rows import front_rows
    from hybrid_sweep.analysis.objectives import quality_kind, speedup_column
    from hybrid_sweep.analysis.pareto import recommended
    from hybrid_sweep.report.notes import never_predicted

    trials = folder.trials()
    failed = trials[trials["state"] == "failed"]
    best = recommended(trials, speedup_column(folder.manifest), quality_kind(folder.manifest))
    parts: list[RenderableType] = []
    if interrupted:
        parts += [_line("Interrupted: what is finished is written; resume does the rest.", "yellow"), ""]
    if best is None:
        parts.append("No run is done.")
    else:
        parts += [Text("Pareto front", "bold"), front_table(front_rows(folder), width)]
    parts.append(_line(f"{sum(counts.values())} runs: {_listed(f'{n} {s}' for s, n in counts.items() if n)}"))
    for row in failed.head(FAILURES_SHOWN).to_dict("records"):
        parts.append(_line(f"  {row['trial_id']} (seed {row['seed']}) failed: {row['reason']}", "red"))
    if len(failed) > FAILURES_SHOWN:
        parts.append(_line(f"  and {len(failed) - FAILURES_SHOWN} more", "red"))
    parts += ["", *map(_line, folder.analyzer_lines(trials))]
    if note := never_predicted(trials):
        parts.append(_line(note.text, "yellow"))
    parts += ["", _line(f"Results: {folder.path}"), "Next:"]
    commands = [*(["resume DIR"] if interrupted else []), "report DIR", "pareto DIR"]
    if best is not None:
        commands[-2:-2] = ["confirm DIR", "verdict DIR"]
        commands.append(f"export DIR --trial {quote(str(best['trial_id']))} --format toml")
    path = quote(str(folder.path))
    parts += [_line(f"  hybrid-sweep {command.replace('DIR', path, 1)}", "cyan") for command in commands]
    return Group(*parts)


def confirmed(found: Confirmation) -> RenderableType:
    """Return what a confirmation found: a row a point and control, best point first."""
    from hybrid_sweep.analysis.comparison import ratio

    table = _table("point", "against", "time to target", "whole run", "quality (test)", "at equal time")
    for point in found.points:
        for number, row in enumerate(found.rows(point).values()):
            qualities = (str(ratio(row, name)).replace("×", "") for name in ("quality", "equal_time_quality"))
            speeds = (str(ratio(row, name)) for name in ("speedup_to_target", "speedup_whole_run"))
            table.add_row("" if number else Text(point, "bold"), str(row["what"]), *speeds, *qualities)
    speed, quality_lost = found.luck()
    parts: list[RenderableType] = [
        Text(f"Confirmed on seeds {_listed(found.seeds)}, target at quality {found.min_quality:g}", "bold"),
        table,
        f"Against what the sweep saw of these points: speed {speed:+.0%}, quality {quality_lost:+.3f}.",
    ]
    if others := len(found.left_out):
        parts.append(f"Left out: {others} other point{'s' * (others > 1)} of the front (--points).")
    return Group(*parts, "")


def print_verdict(verdict: Verdict, format: str) -> None:
    """Print a verdict."""
    print(json.dumps(verdict.to_dict(), indent=1) if format == "json" else safe("\n".join(verdict.lines())))


def print_cache(cache: Cache, format: str) -> None:
    """Print what the cache holds, a row a kind."""
    usage = cache.usage()
    size = sum(each.size_bytes for each in usage)
    used = {each.kind: datetime.fromtimestamp(each.newest_use, UTC) for each in usage}
    if format == "json":
        kinds = [
            {**asdict(each), "newest_use": used[each.kind].isoformat(timespec="seconds")} for each in usage
        ]
        totals = {"root": str(cache.root), "size_bytes": size, "limit_bytes": cache.limit_bytes}
        print(json.dumps({**totals, "kinds": kinds}, indent=1))
        return
    table = _table("kind", "entries", "size", "newest use")
    for each in usage:
        newest = f"{used[each.kind].astimezone():%Y-%m-%d %H:%M}"
        table.add_row(Text(each.kind, "bold"), str(each.entries), decimal(each.size_bytes), newest)
    if usage:
        console().print(table)
    console().print(_line(f"{decimal(size)} of {decimal(cache.limit_bytes)} in {cache.root}"))


def write_config(values: Mapping[str, Any], format: str, to: Path | None) -> None:
    """Write a trainer's configuration to the file `to`, or to standard output.

    Raises:
        UserError: where the format cannot hold a configuration, or `to` cannot be written.
    """
    from hybrid_sweep.store.atomic import write_text
    from hybrid_sweep.trainer.config import HybridConfig

    config = HybridConfig(**values)
    forms = {"toml": config.to_toml, "json": config.to_json}
    if format not in forms:
        raise UserError(f"a configuration is not written as {format}: use --format toml or --format json")
    text = forms[format]().rstrip("\n") + "\n"
    if to is None:
        print(text, end="")
        return
    try:
        write_text(to, text)
    except OSError as error:
        raise UserError(f"cannot write {to}: {error.strerror}; name a file in a folder that exists") from None


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "(not installed)"


def _line(text: str, style: str = "") -> Text:
    """Return a line that a terminal may break, but we do not: it can be copied whole."""
    return Text(text, style, no_wrap=True, overflow="ignore")


def _table(*headings: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False, collapse_padding=True)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def _listed(values: Any) -> str:
    return ", ".join(map(str, values))


def _cell(row: Mapping[str, Any], name: str, digits: int) -> str:
    from hybrid_sweep.analysis.intervals import shown

    if _is_missing(row[name]):
        return "–"
    return row[name] if isinstance(row[name], str) else shown(row, name, digits)


def _is_missing(value: str | float) -> bool:
    return not isinstance(value, str) and math.isnan(value)
