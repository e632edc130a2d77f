"""The points of a sweep: the full grid of its space, a readable id for each, and a hash of its settings."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from itertools import product
from typing import Any

from hybrid_sweep.errors import UserError
from hybrid_sweep.spec import SweepSpec
from hybrid_sweep.trainer.config import HybridConfig

IN_EVERY_ID = ("max_predict_steps", "correction_interval", "confidence_threshold")


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One configuration of a sweep.

    Attributes:
        trial_id: `H075_I15_C0.60`, unique in the sweep and fit to name a file.
        config: fields of `HybridConfig`, fixed and swept; the others have their defaults.
    """

    trial_id: str
    config: dict[str, Any]


def grid(spec: SweepSpec) -> list[Point]:
    """Return every combination of the space's values, the last field varying fastest.

    Raises:
        UserError: where `HybridConfig` refuses a value, or two combinations are the same configuration.
    """
    points = [
        _point(spec, dict(zip(spec.space, values, strict=True))) for values in product(*spec.space.values())
    ]
    for trial_id, count in Counter(point.trial_id for point in points).items():
        if count > 1:
            raise UserError(f"{count} points of the space are all {trial_id}: remove the repeated values")
    return points


def trial_id(config: HybridConfig, swept: Mapping[str, Any]) -> str:
    """Return the id of a configuration: horizon, interval and threshold, then whatever else is swept.

    Numbers are written so that different values give different ids: 0.6 is `0.60`, 0.605 is `0.605`.
    """
    parts = [
        f"H{config.max_predict_steps:03d}",
        f"I{config.correction_interval:02d}",
        f"C{_decimal(config.confidence_threshold)}",
    ]
    if "divergence_threshold" in swept:
        parts.append(f"D{_decimal(config.divergence_threshold)}")
    others = [name for name in swept if name not in (*IN_EVERY_ID, "divergence_threshold")]
    parts += [
        f"{name}={re.sub(r'[^A-Za-z0-9.+-]', '-', str(getattr(config, name)))}" for name in sorted(others)
    ]
    return "_".join(parts)


def config_hash(config: Mapping[str, Any]) -> str:
    """Return 16 hexadecimal digits that depend on the values alone: not on their order, nor on 1 or 1.0."""
    text = json.dumps(_canonical(config), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return sha256(text.encode()).hexdigest()[:16]


def _point(spec: SweepSpec, swept: dict[str, Any]) -> Point:
    fields = {**spec.trainer, **swept}
    config = HybridConfig(**fields)
    values = config.model_dump(include=set(fields))
    return Point(trial_id=trial_id(config, swept), config={name: values[name] for name in fields})


def _decimal(value: float) -> str:
    short = f"{value:.2f}"
    return short if float(short) == value else repr(value)


def _canonical(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _canonical(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
