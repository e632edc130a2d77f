"""RunCache: what runs of one workload have measured, found again by everything that it depends on."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import TypeAdapter

from hybrid_sweep.control import ControlConfig
from hybrid_sweep.measure.cache import Cache
from hybrid_sweep.measure.curve import Curve
from hybrid_sweep.measure.fingerprint import Fingerprint
from hybrid_sweep.trainer.state import Segment

T = TypeVar("T")
CURVE = TypeAdapter(Curve)

TwinKey = tuple[int, tuple[Segment, ...], ControlConfig]
"""A run that repeats the real steps of a hybrid run: seed, the phases of that, and arm."""


class RunCache:
    """Measurements of one workload in the cache: plain data, by kind and by what sets a run apart.

    Args:
        content: of the workload.
        cache: where they are; None takes the user's.
    """

    def __init__(self, content: Fingerprint, cache: Cache | None = None) -> None:
        self._content = content
        self._cache = cache or Cache()

    def key(self, **parts: Any) -> str:
        """Return what is equal wherever the run that `parts` describe is equal, as `Fingerprint.key`."""
        return self._content.key(**parts)

    def get(self, kind: str, shape: TypeAdapter[T], **parts: Any) -> T | None:
        """Return what was measured of the run that `parts` describe; None where it has to be run."""
        return self._cache.get_json(kind, self.key(**parts), shape)

    def put(self, kind: str, value: object, **parts: Any) -> None:
        """Keep plain data, or dataclasses of it."""
        self._cache.put_json(kind, self.key(**parts), value)

    def kept(
        self, kind: str, shape: TypeAdapter[T], measure: Callable[[], T], *, fresh: bool = False, **parts: Any
    ) -> T:
        """Return what `get` does; where that is None, or with `fresh`, `measure` it now and keep it."""
        found = None if fresh else self.get(kind, shape, **parts)
        if found is None:
            found = measure()
            self.put(kind, found, **parts)
        return found


class KeptTwins(UserDict[TwinKey, Curve]):
    """Twins in memory, and behind it in the cache."""

    def __init__(self, runs: RunCache) -> None:
        self._runs = runs
        super().__init__()

    def __missing__(self, key: TwinKey) -> Curve:
        kept = self._runs.get("twins", CURVE, **_parts(key))
        if kept is None:
            raise KeyError(key)
        return self.data.setdefault(key, kept)

    def __setitem__(self, key: TwinKey, curve: Curve) -> None:
        super().__setitem__(key, curve)
        self._runs.put("twins", curve, **_parts(key))


def _parts(key: TwinKey) -> dict[str, Any]:
    seed, trace, arm = key
    return {"seed": seed, "trace": trace, "arm": arm.model_dump()}
