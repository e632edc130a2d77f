"""Edges of a sweep in Ray's object store, where the workers of every node find them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from hybrid_sweep.cluster.connection import nodes

if TYPE_CHECKING:  # a directory's process needs no torch
    from hybrid_sweep.measure.shared_prefix import Store

STORE_SHARE = 0.25
"""Of the smallest object store of the cluster, for the edges of a sweep."""
DIRECTORY_TIMEOUT_SECONDS = 30.0
"""For one answer of the directory; a worker that has waited longer asks no more."""


class Directory:
    """An actor that keeps edges in the object store of its node, and owns them: they outlive who put them.

    Args:
        limit_bytes: of all edges; the least recently used ones go when they grow past it.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._held: dict[str, tuple[Any, int]] = {}  # the least recently used first

    def get(self, key: str) -> Any | None:
        """Return a reference to what was put."""
        if key not in self._held:
            return None
        self._held[key] = self._held.pop(key)
        return self._held[key][0]

    def put(self, key: str, data: bytes) -> None:
        """Keep `data`, where there is room for it, and let others go."""
        if len(data) > self._limit_bytes:
            return
        self._held.pop(key, None)
        self._held[key] = ray.put(data), len(data)
        while sum(size for _, size in self._held.values()) > self._limit_bytes:
            del self._held[next(iter(self._held))]


def start_directory() -> Any | None:
    """Start the `Directory` of a sweep on the driver's node; where there is no other node, return None.

    It takes up to `STORE_SHARE` of that node's object store, and ends with the driver at the latest.
    """
    stores = [node.get("object_store_memory", 0.0) for node in nodes()]
    if len(stores) < 2:
        return None
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    make: Any = ray.remote(Directory).options(num_cpus=0, scheduling_strategy=here)
    return make.remote(int(STORE_SHARE * min(stores)))


class PrefixStore:
    """Edges of one sweep on this node's disk, and behind it in the directory.

    The first call of the directory that fails, or takes more than `DIRECTORY_TIMEOUT_SECONDS`, is the last
    one: from then on there is the disk alone.

    Args:
        disk: the sweep's on this node.
        directory: the actor, a `Directory`.
        kind: what a node must have in common with another one for a run to be the same on both.
    """

    def __init__(self, disk: Store, directory: Any, kind: str) -> None:
        self._disk, self._directory, self._kind = disk, directory, kind
        self._sent: list[Any] = []  # what is still on its way

    def get(self, key: str) -> bytes | None:
        """Return what any worker of a node of this kind has put; it is then on this node's disk too."""
        data = self._disk.get(key)
        if data is None and self._directory:
            with self._asking():
                reference = ray.get(
                    self._directory.get.remote(self._name(key)), timeout=DIRECTORY_TIMEOUT_SECONDS
                )
                data = reference and ray.get(reference, timeout=DIRECTORY_TIMEOUT_SECONDS)
            if data is not None:
                self._disk.put(key, data)
        return data

    def put(self, key: str, data: bytes) -> None:
        """Keep `data`; wait only for what was put before it to arrive."""
        self._disk.put(key, data)
        if self._directory:
            with self._asking():
                ray.get(self._sent, timeout=DIRECTORY_TIMEOUT_SECONDS)
                self._sent = [self._directory.put.remote(self._name(key), data)]

    def _name(self, key: str) -> str:
        return f"{self._kind} {key}"

    @contextmanager
    def _asking(self) -> Iterator[None]:
        try:
            yield
        except RayError:
            self._directory = None
