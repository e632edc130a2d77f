"""Write the tables of fields, commands and columns into the pages, from the code that they describe.

    python docs/generate.py

A test compares the pages with what this writes.
"""

import re
from collections.abc import Callable
from pathlib import Path

import typer
from pydantic import BaseModel

from hybrid_sweep.cli.app import app
from hybrid_sweep.spec import axes, sweep
from hybrid_sweep.store.columns import TRIAL_COLUMNS
from hybrid_sweep.trainer.config import HybridConfig

PAGES = Path(__file__).parent
PART = re.compile(r"<!-- generated: (\w+) -->.*?<!-- end -->", re.DOTALL)
SECTIONS = (sweep.Constraints, sweep.Mask, sweep.EarlyStopping, sweep.ReferencePoint, axes.Range, axes.Choice)


def filled(page: str) -> str:
    """Return a page with each generated part as it is now."""
    return PART.sub(
        lambda part: f"<!-- generated: {part[1]} -->\n\n{GENERATED[part[1]]()}\n\n<!-- end -->", page
    )


def sweep_fields() -> str:
    """Return the fields of a sweep file, and of each section of it."""
    parts = [fields_of(sweep.SweepSpec)]
    for section in SECTIONS:
        about = first_sentence(section)
        parts.append(f"### `{section.__name__}`\n\n{about}\n\n{fields_of(section)}")
    return "\n\n".join(parts)


def fields_of(model: type[BaseModel]) -> str:
    """Return a table of the fields of a model: default, and meaning by the docstring."""
    meanings = attributes(model.__doc__ or "")
    rows = [(f"`{name}`", default_of(model, name), meanings.get(name, "")) for name in model.model_fields]
    return table(("field", "default", "meaning"), rows)


def default_of(model: type[BaseModel], name: str) -> str:
    """Return the default of a field as a sweep file would spell it."""
    field = model.model_fields[name]
    if field.is_required():
        return "needed"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return "see below"
    return f"`{'null' if value is None else value if value != '' else repr(value)}`"


def attributes(docstring: str) -> dict[str, str]:
    """Return what the part "Attributes" of a docstring says of each one."""
    part = re.search(r"\n *Attributes:\n(.*?)(\n *\w+:\n|\Z)", docstring, re.DOTALL)
    found = re.findall(r"^ {8}(\w+): (.*?)(?=^ {8}\w|\Z)", part[1] if part else "", re.DOTALL | re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in found}


def first_sentence(model: type[BaseModel]) -> str:
    """Return the first line of a docstring."""
    return (model.__doc__ or "").partition("\n")[0]


def commands() -> str:
    """Return every command with its arguments and options."""
    group = typer.main.get_command(app)
    parts = []
    for name, command in sorted(group.commands.items()):  # type: ignore[attr-defined]
        for full, each in sorted(getattr(command, "commands", {name: command}).items()):
            title = name if full == name else f"{name} {full}"
            about = re.sub(r"\[/?[^\]\s]*\]", "", each.help or "").strip()
            rows = [(f"`{' '.join(p.opts)}`", getattr(p, "help", "") or "") for p in each.params]
            parts.append(f"## `hybrid-sweep {title}`\n\n{about}\n\n{table(('option', 'meaning'), rows)}")
    return "\n\n".join(parts)


def columns() -> str:
    """Return the columns of a table of trials."""
    return table(("column", "kind", "meaning"), [(f"`{c.name}`", c.kind, c.meaning) for c in TRIAL_COLUMNS])


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Return a table of Markdown."""
    cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    lines = [list(head), ["---"] * len(head), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


GENERATED: dict[str, Callable[[], str]] = {
    "sweep": sweep_fields,
    "trainer": lambda: fields_of(HybridConfig),
    "cli": commands,
    "columns": columns,
}

if __name__ == "__main__":
    for page in PAGES.glob("*.md"):
        page.write_text(filled(page.read_text(encoding="utf-8")), encoding="utf-8")
