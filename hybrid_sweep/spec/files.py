"""Sweep files: found, read, and changed in some of their fields."""

from __future__ import annotations

import importlib.resources
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hybrid_sweep.errors import UserError, unknown_name
from hybrid_sweep.paths import text_of, user_path
from hybrid_sweep.spec.sweep import Constraints, EarlyStopping, Mask, ReferencePoint, SweepSpec, UnitCosts
from hybrid_sweep.spec.yaml import parse_yaml
from hybrid_sweep.trainer.config import EARLIER_VALUES, HybridConfig
from hybrid_sweep.workload import locate_workload

logger = logging.getLogger(__name__)


PACKAGED = "search_spaces"  # reached by name, as content: never imported as code


def packaged_sweeps() -> list[str]:
    """Return the names of the sweeps that come with the package."""
    files = importlib.resources.files(PACKAGED).iterdir()
    return sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml"))


def parse_changes(changes: Iterable[str]) -> dict[str, str]:
    """Return the overrides that texts of the form `key=value` spell, the last of a key winning.

    Raises:
        UserError: where there is no `=`.
    """
    parts = {}
    for change in changes:
        key, separator, value = change.partition("=")
        if not separator or not key.strip():
            keys = ", ".join(sorted(SweepSpec.model_fields))
            raise UserError(f"--set {change!r} has no value: write KEY=VALUE; the keys are {keys}")
        parts[key.strip()] = value
    return parts


def load_spec(name_or_path: str | Path, overrides: Mapping[str, Any] | None = None) -> SweepSpec:
    """Read a sweep, packaged or the user's own, and change some of its fields.

    A workload given as a file or module is looked for beside the sweep file; one given as an override, or
    with a packaged sweep, in the current folder. What is found is named by its whole path.

    Args:
        name_or_path: a packaged name ("grid60") or a path to a YAML file.
        overrides: dotted field to value, `{"steps": 500, "workload.data": "mnist"}`; a text is read as YAML.

    Raises:
        UserError: for an unknown sweep, field or override, or a value that is not allowed.
    """
    path = user_path(name_or_path)
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        text, folder = _read(path), path.parent
        source, default_name = str(path), path.stem
    elif str(name_or_path) in packaged_sweeps():
        source = default_name = str(name_or_path)
        text = (importlib.resources.files(PACKAGED) / f"{source}.yaml").read_text(encoding="utf-8")
        folder = Path()
    else:
        hint = unknown_name("sweep", str(name_or_path), packaged_sweeps())
        raise UserError(f"{hint}; or give the path of your own .yaml file")

    values = parse_yaml(text, source)
    if not isinstance(values, dict):
        raise UserError(f"{source} is not a sweep: expected `key: value` lines such as `name:` and `space:`")
    values.setdefault("name", default_name)
    locate_workload(values, folder)
    for dotted, value in (overrides or {}).items():
        read = parse_yaml(value, f"{dotted}={value!r}") if isinstance(value, str) else value
        _override(values, dotted, read)
    locate_workload(values, Path())
    _tell_of_earlier_values(values, source)
    try:
        return SweepSpec(**values)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None


def _tell_of_earlier_values(values: Mapping[str, Any], source: str) -> None:
    """Log, in a line, the values of settings that have another name by now."""
    sections = [values.get("trainer"), values.get("space"), *(values.get("points") or [])]
    found = {}
    for section in sections:
        for field, value in section.items() if isinstance(section, dict) else ():
            listed = value.get("values", []) if isinstance(value, dict) else value
            for each in listed if isinstance(listed, list) else [listed]:
                if isinstance(each, str) and each in EARLIER_VALUES.get(field, {}):
                    found[f"{field}={each}"] = EARLIER_VALUES[field][each]
    if found:
        said = ", ".join(f"{old} is {new}" for old, new in found.items())
        logger.warning("%s: values have new names (%s); the old ones are read as those", source, said)


def _read(path: Path) -> str:
    try:
        return text_of(path)
    except FileNotFoundError:
        known = ", ".join(packaged_sweeps())
        raise UserError(f"no sweep file {path}; check the path, or use a packaged sweep: {known}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as a sweep file: {error}") from None


def _override(values: dict[str, Any], dotted: str, value: Any) -> None:
    """Set one field in place, refusing a name that no section knows."""
    _validate_known(dotted)
    *sections, field = dotted.split(".")
    target = values
    for name in sections:
        below = target.get(name) or {}
        if name == "workload" and isinstance(below, str):
            below = {"name": below}
        if not isinstance(below, dict):
            raise UserError(f"{dotted!r} cannot be set: {name} is {below!r}, a single value")
        target[name] = below
        target = below
    target[field] = value


def _validate_known(dotted: str) -> None:
    """Refuse a dotted name that leads to no field; the keywords of a workload are its own business."""
    section, *fields = dotted.split(".")
    trainer = sorted(HybridConfig.model_fields)
    inside: dict[str, list[str]] = {
        "trainer": trainer,
        "space": trainer,
        "unit_costs": list(UnitCosts.model_fields),
        "hypervolume_reference": list(ReferencePoint.model_fields),
        "constraints": list(Constraints.model_fields),
        "mask": list(Mask.model_fields),
        "early_stopping": list(EarlyStopping.model_fields),
    }
    if dotted in trainer:
        raise UserError(
            f"unknown key {dotted!r}: write trainer.{dotted}=VALUE to fix it for every trial, "
            f"or space.{dotted}=[VALUE, ...] to sweep it"
        )
    if section not in SweepSpec.model_fields:
        raise unknown_name("key", dotted, sorted(SweepSpec.model_fields))
    if fields and section in inside and (len(fields) > 1 or fields[0] not in inside[section]):
        raise unknown_name("key", dotted, [f"{section}.{name}" for name in inside[section]])
    if fields and section not in inside and section != "workload":
        raise UserError(f"unknown key {dotted!r}: {section} is a single value; write {section}=VALUE")
