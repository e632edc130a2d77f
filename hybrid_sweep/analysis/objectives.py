"""The plane of a front: which column is its speed, what its quality is, the hypervolume's corner."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MIN_QUALITY = 0.98
"""The quality that counts as good where nothing else is said."""


def speedup_column(manifest: Mapping[str, Any]) -> str:
    """Return the column that is a sweep's speed: "speedup", or "speedup_counted" where it counts its work."""
    packed = ((manifest.get("pack") or {}).get("size") or 1) > 1
    counted = packed or (manifest.get("spec") or {}).get("timing") == "counted"
    return "speedup_counted" if counted else "speedup"


def quality_kind(manifest: Mapping[str, Any]) -> str:
    """Return how a sweep's workload compares held-out results, a `workload.Quality`."""
    return str(manifest.get("quality") or "loss_ratio")


def hypervolume_reference(manifest: Mapping[str, Any]) -> tuple[float, float]:
    """Return the reference point that the manifest records, as (speedup, quality)."""
    recorded = manifest.get("hypervolume_reference") or {}
    return float(recorded.get("speedup", 1.0)), float(recorded.get("quality", 0.90))
