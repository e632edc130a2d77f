"""The points of a sweep: those given and the full grid, their readable ids, and a hash of their settings."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from itertools import product
from math import prod
from typing import Any

from hybrid_sweep import limits
from hybrid_sweep.errors import UserError
from hybrid_sweep.spec.axes import values_of
from hybrid_sweep.spec.sweep import SweepSpec
from hybrid_sweep.trainer.config import EARLIER_VALUES, HybridConfig
from hybrid_sweep.trainer.presets import PRESETS

IN_EVERY_ID = ("max_predict_steps", "correction_interval", "confidence_threshold")
LONGEST_ID = 80
LONGEST_GRID_ID = 180


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One configuration of a sweep.

    Attributes:
        trial_id: `H075_I15_C0.60` of a grid, `T0007_H075_I15_C0.60` of a point that was chosen otherwise;
            unique in the sweep and fit to name a file.
        config: fields of `HybridConfig`, fixed and swept; the others have their defaults.
    """

    trial_id: str
    config: dict[str, Any]


def grid(spec: SweepSpec) -> list[Point]:
    """Return every combination of the space's values, the first field varying fastest.

    What a space names first is what matters most, so trials that run side by side soon go different ways.

    Raises:
        UserError: where `HybridConfig` refuses a value, two combinations are the same configuration, or they
            are too many to be run.
    """
    axes: list[list[Any]] = [values_of(axis) or [] for axis in reversed(spec.space.values())]
    if (count := prod(map(len, axes))) > limits.POINTS:
        raise UserError(
            f"the grid has {count:,} points, and at most {limits.POINTS:,} are allowed: list fewer values, "
            "or take sampler: tpe, gp, nsga2 or random"
        )
    points = [_point(spec, dict(zip(spec.space, reversed(values), strict=True))) for values in product(*axes)]
    for trial_id, count in Counter(point.trial_id for point in points).items():
        if count > 1:
            raise UserError(f"{count} points of the space are all {trial_id}: remove the repeated values")
    return points


def given(spec: SweepSpec) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the configurations that are tried first: "preset" or "point", and the fields of `HybridConfig`.

    Raises:
        UserError: where `HybridConfig` refuses one.
    """
    for name in spec.presets:
        yield "preset", config_of({**spec.trainer, **PRESETS[name].model_dump(exclude_unset=True)})
    for point in spec.points:
        yield "point", config_of({**spec.trainer, **point})


def config_of(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return these fields of `HybridConfig` as it takes them.

    Raises:
        UserError: where it refuses one.
    """
    return _chosen(HybridConfig(**fields), fields)


def trial_id(config: HybridConfig, swept: Collection[str]) -> str:
    """Return the id of a configuration: horizon, interval and threshold, then whatever else is swept.

    Numbers are written so that different values give different ids: 0.6 is `0.60`, 0.605 is `0.605`. An id of
    more than 180 characters ends with a hash in place of the rest.
    """
    text = "_".join(_parts(config, swept, _exactly))
    if len(text) <= LONGEST_GRID_ID:
        return text
    return f"{text[: LONGEST_GRID_ID - 17]}_{sha256(text.encode()).hexdigest()[:16]}"


def numbered_id(number: int, config: HybridConfig, swept: Collection[str]) -> str:
    """Return `T0007_` and as much of the rounded `trial_id` as 80 characters hold."""
    text = f"T{number:04d}"
    for part in _parts(config, swept, "{:.2f}".format):
        if len(text) + 1 + len(part) > LONGEST_ID:
            break
        text += f"_{part}"
    return text


def complete_hash(config: Mapping[str, Any]) -> str:
    """Return the hash of a configuration with every default filled in, so that saying one changes nothing.

    Raises:
        UserError: where `HybridConfig` refuses it.
    """
    return config_hash(HybridConfig(**config).model_dump())


def config_hash(config: Mapping[str, Any]) -> str:
    """Return 16 hexadecimal digits that depend on the values alone: not on their order, nor on 1 or 1.0."""
    text = json.dumps(
        _canonical(_as_first_named(config)), sort_keys=True, separators=(",", ":"), allow_nan=False
    )
    return sha256(text.encode()).hexdigest()[:16]


def _as_first_named(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with the first names of their values: journals of that time keep their hashes."""
    first = {name: {new: old for old, new in names.items()} for name, names in EARLIER_VALUES.items()}
    return {k: first.get(k, {}).get(v, v) if isinstance(v, str) else v for k, v in config.items()}


def _point(spec: SweepSpec, swept: dict[str, Any]) -> Point:
    fields = {**spec.trainer, **swept}
    settings = HybridConfig(**fields)
    return Point(trial_id=trial_id(settings, swept), config=_chosen(settings, fields))


def _chosen(settings: HybridConfig, fields: Collection[str]) -> dict[str, Any]:
    values = settings.model_dump(include=set(fields))
    return {name: values[name] for name in fields}


def _parts(config: HybridConfig, swept: Collection[str], decimals: Callable[[float], str]) -> list[str]:
    parts = [
        f"H{config.max_predict_steps:03d}",
        f"I{config.correction_interval:02d}",
        f"C{decimals(config.confidence_threshold)}",
    ]
    if "divergence_threshold" in swept:
        parts.append(f"D{decimals(config.divergence_threshold)}")
    for name in sorted(set(swept) - {*IN_EVERY_ID, "divergence_threshold"}):
        value = getattr(config, name)
        text = f"{value:.3g}" if isinstance(value, float) and decimals is not _exactly else str(value)
        parts.append(f"{name}={re.sub(r'[^A-Za-z0-9.+-]', '-', text)}")
    return parts


def _exactly(value: float) -> str:
    short = f"{value:.2f}"
    return short if float(short) == value else repr(value)


def _canonical(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _canonical(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
