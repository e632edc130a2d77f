"""Shared trials: what several configurations have in common is trained once, up to where they first differ.

Horizon, interval and threshold matter only where a phase is decided. Until the first decision in which two
configurations part they are one run: a threshold that the confidence never comes near, an interval longer
than the realised horizon (inventory C-41) are the same run to its end. So a sweep is a tree. Its edges lead
from one parting to the next and hold the reports on the way; its nodes hold the state of the run there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from contextlib import suppress
from hashlib import sha256
from typing import Any, NamedTuple, Protocol

from hybrid_sweep.errors import UserError
from hybrid_sweep.measure.cache import Cache
from hybrid_sweep.measure.checkpoint import from_bytes, to_bytes
from hybrid_sweep.measure.trial import SWEPT, Trial
from hybrid_sweep.trainer.config import HybridConfig
from hybrid_sweep.trainer.phases import Phase
from hybrid_sweep.trainer.plain import Steps, alone
from hybrid_sweep.trainer.trainer import HybridTrainer

DECIDING = ("max_predict_steps", "correction_interval", "confidence_threshold")
"""Settings that matter only where a phase is decided, as long as the interval is a fixed one."""


class Store(Protocol):
    """Where edges are kept, by key; either call may do nothing."""

    def get(self, key: str) -> bytes | None:
        """Return what was put."""
        ...

    def put(self, key: str, data: bytes) -> None:
        """Keep `data`."""
        ...


class SweepStore:
    """Edges of one sweep in this node's cache.

    Args:
        sweep_id: of the sweep; measured seconds are not handed on to another.
    """

    def __init__(self, sweep_id: str) -> None:
        self._kind = f"sweep_{sweep_id}"
        self._cache = Cache()

    def get(self, key: str) -> bytes | None:
        """Return what any worker of this node has put."""
        return self._cache.get(self._kind, key)

    def put(self, key: str, data: bytes) -> None:
        """Keep `data` until the sweep ends, or there is no room."""
        self._cache.put(self._kind, key, data)

    def close(self) -> None:
        """Forget the sweep's edges."""
        with suppress(UserError):  # not ours to remove: they go when room is needed
            self._cache.clear(self._kind)


class Edge(NamedTuple):
    """The way from one parting to the next.

    Attributes:
        reports: on the way.
        finished: state, reason and columns of the result, where the run ended.
        parting: else the state of the run where the ways part, from which every way goes on.
    """

    reports: list[dict[str, Any]]
    finished: dict[str, Any] | None
    parting: dict[str, Any] | None


class SharedTrial:
    """A `Trial` that follows what others have trained as far as it would do the same, then goes its own way.

    Its numbers are those of a trial on its own: time that was shared is charged to everyone who shares it.

    Args:
        make: starts the trial on its own.
        config: its settings, with a fixed correction schedule.
        seed: of the run.
        others: settings that the sweep tries too; where they part from these, the state is kept for them.
        open_ended: whether it may yet try others, for which the first decision is kept.
        store: of the sweep.

    Attributes:
        state: as of a `Trial`.
        reason: why it ended so.
    """

    def __init__(
        self,
        make: Callable[[], Trial],
        config: HybridConfig,
        seed: int,
        others: Iterable[HybridConfig],
        *,
        open_ended: bool,
        store: Store,
    ) -> None:
        self.state, self.reason = "running", ""
        self._make, self._config, self._store = make, config, store
        base = _base(config)
        self._with_me = [other for other in others if other != config and _base(other) == base]
        self._open_ended = open_ended
        self._key = _hash(base, seed)
        self._told: list[dict[str, Any]] = []  # since the newest parting
        self._trial: Trial | None = None
        self._result: dict[str, Any] | None = None
        self._parting: bytes | None = None  # the edge that led to it, where others were followed
        self._data = store.get(self._key)
        self._edge = _read(self._data)
        if self._edge is None:
            self._lead(make())

    @property
    def done(self) -> bool:
        """Whether the run has ended, well or badly."""
        return self.state != "running"

    @property
    def following(self) -> bool:
        """Whether all of the run so far has been trained by others."""
        return self._trial is None

    def report(self) -> dict[str, Any]:
        """Return the report of the next cycle, trained or followed; at the end of the run, set `state`."""
        return alone(self.reporting())

    def reporting(self) -> Steps[dict[str, Any]]:
        """As `report`, but leave the real steps to whoever iterates, so that many can be taken at once."""
        while self._edge and len(self._told) == len(self._edge.reports):
            self._choose()
        report = self._edge.reports[len(self._told)] if self._edge else (yield from self._own.reporting())
        self._told.append(report)
        if self._edge is None and self._own.done:
            result = yield from self._own.resulting()  # first: it may add to the reason
            finished = {"state": self._own.state, "reason": self._own.reason, "result": result}
            self._keep(Edge(self._told, finished, None))
            self._end(finished)
        elif self._edge and self._edge.finished and len(self._told) == len(self._edge.reports):
            self._end(self._edge.finished)
        return report

    def result(self) -> dict[str, Any]:
        """Return the columns of the run, at the step that it has reached."""
        settings = {name: getattr(self._config, name) for name in SWEPT}
        result = {**(self._result or self._own.result()), **settings, "config": self._config.to_json()}
        if self.following:
            result["followed_seconds"] = result["train_seconds"]
        return result

    def state_dict(self) -> dict[str, Any]:
        """Return the run as it stands between two reports, for a `Trial` to go on from."""
        return self._own.state_dict()

    @property
    def _own(self) -> Trial:
        """The run itself; where others were followed so far, it is trained again from the newest parting."""
        if self._trial is None:
            self._trial = self._at_parting()
            for _ in self._told:
                self._trial.report()
            self._edge = None
            self._with_me = []
        return self._trial

    def _end(self, finished: dict[str, Any]) -> None:
        self.state, self.reason, self._result = (finished[name] for name in ("state", "reason", "result"))

    def _lead(self, trial: Trial) -> None:
        """Train from here on, and keep the state wherever others part."""
        self._trial, self._edge = trial, None
        if self._with_me or self._open_ended:
            trial.trainer.at_decisions(self._at_decision)

    def _choose(self) -> None:
        """At a parting that others have left behind: follow whoever went the same way, or lead."""
        self._parting = self._data
        trial = self._at_parting()
        self._part(trial.trainer)
        self._data = self._store.get(self._key)
        self._edge = _read(self._data)
        if self._edge is None:
            self._lead(trial)

    def _at_parting(self) -> Trial:
        trial, edge = self._make(), _read(self._parting)
        if edge and edge.parting:
            trial.load_state_dict(edge.parting, may_differ=DECIDING)
            trial.follow()
        return trial

    def _at_decision(self) -> None:
        """Keep the state where somebody parts, or might."""
        trainer = self._own.trainer
        mine = trainer.next_phase(self._config)
        parts = any(trainer.next_phase(other) != mine for other in self._with_me)
        if parts or (self._open_ended and trainer.controller.phase is Phase.FULL):
            self._keep(Edge(self._told, None, self._own.state_dict()))
            self._part(trainer)
            if not self._with_me:
                trainer.at_decisions(None)

    def _part(self, trainer: HybridTrainer) -> None:
        """Go one's own way from a parting, with those who go the same."""
        mine = trainer.next_phase(self._config)
        self._with_me = [other for other in self._with_me if trainer.next_phase(other) == mine]
        self._open_ended = False
        self._key, self._told = _hash(self._key, mine), []

    def _keep(self, edge: Edge) -> None:
        if not (self._with_me or self._open_ended):
            return
        try:
            self._store.put(self._key, to_bytes(edge._asdict()))
        except UserError:  # a state that cannot be saved cannot be shared either
            self._with_me, self._open_ended = [], False


def _read(data: bytes | None) -> Edge | None:
    """Return an edge that was kept; None where there is none, or a damaged one."""
    if data is None:
        return None
    try:
        return Edge(**from_bytes(data))
    except UserError:
        return None


def _base(config: HybridConfig) -> dict[str, Any]:
    return {name: value for name, value in config.model_dump().items() if name not in DECIDING}


def _hash(*parts: Any) -> str:
    return sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
