"""Backend: where runs happen. What to try is the study's business, and neither knows of the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

Key = tuple[str, int]
"""A run: trial id and seed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One configuration with one seed, started for the `attempt`-th time (from 1).

    Attributes:
        trial_id: of the configuration.
        seed: of model, data order and random numbers.
        config: fields of `HybridConfig`; of a control, of `ControlConfig`, and its real `steps`.
        arm: of a control; "" for a point of the sweep.
        attempt: 1, and one more after each loss.
    """

    trial_id: str
    seed: int
    config: dict[str, Any]
    arm: str = ""
    attempt: int = 1

    @property
    def key(self) -> Key:
        """Trial id and seed."""
        return self.trial_id, self.seed


@dataclass(frozen=True, slots=True)
class Reported:
    """A run ended a cycle: its report and a checkpoint, which goes on from here, where each was due."""

    key: Key
    report: Mapping[str, Any] | None
    checkpoint: bytes | None = None


@dataclass(frozen=True, slots=True)
class Finished:
    """A run ended by itself: `state` is done, diverged or failed; its last report came before.

    `from_cache` says that an earlier sweep had run it.
    """

    key: Key
    state: str
    reason: str
    result: Mapping[str, Any] = field(default_factory=dict)
    traceback: str = ""
    from_cache: bool = False


@dataclass(frozen=True, slots=True)
class Lost:
    """A run's worker died under it; `preempted` where its node was taken away, or its GPU was full."""

    key: Key
    why: str
    preempted: bool = False
    details: str = ""


@dataclass(frozen=True, slots=True)
class Stopped:
    """A run ended because `stop` asked for it; what it had reached, and from where it could go on."""

    key: Key
    result: Mapping[str, Any] = field(default_factory=dict)
    checkpoint: bytes | None = None


RunUpdate = Reported | Finished | Lost | Stopped


class Backend(Protocol):
    """Runs configurations in slots. One thread uses it; every run started ends in exactly one happening.

    That is `Finished`, `Lost` or `Stopped`; a run that was lost may be started again. No method but `wait`
    takes time.
    """

    @property
    def slots(self) -> int:
        """How many runs fit at once; changes as nodes come and go."""
        ...

    @property
    def free(self) -> int:
        """How many runs can be started now."""
        ...

    def now(self) -> float:
        """Return seconds of this back-end's clock, for durations."""
        ...

    def start(self, run: Run, checkpoint: bytes | None = None) -> None:
        """Start a run in a free slot, from its checkpoint if there is one."""
        ...

    def stop(self, key: Key, *, keep: bool = False) -> None:
        """Ask a run to end after one of its next cycles; `keep` asks for a checkpoint.

        Not an error if it is over.
        """
        ...

    def kill(self, key: Key, why: str) -> None:
        """End the worker under a run that answers no more: the run is `Lost` for this reason.

        Not an error if it is over.
        """
        ...

    def wait(self, seconds: float) -> list[RunUpdate]:
        """Return what happened, in order, at the latest after `seconds` of the back-end's clock."""
        ...
