"""Shared trials: what several configurations have in common is trained once, up to where they first differ.

Horizon, interval and threshold matter only where a phase is decided. Until the first decision in which two
configurations part they are one run: a threshold that the confidence never comes near, an interval longer
than the realised horizon are the same run to its end. So a sweep is a tree. Its edges lead
from one parting to the next and hold the reports on the way; its nodes hold the state of the run there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from contextlib import suppress
from hashlib import sha256
from typing import Any, NamedTuple, Protocol

from pydantic import TypeAdapter

from hybrid_sweep.errors import UserError
from hybrid_sweep.measure.cache import Cache
from hybrid_sweep.measure.checkpoint import from_bytes, to_bytes
from hybrid_sweep.measure.hybrid_run import SWEPT, HybridRun
from hybrid_sweep.trainer.config import HybridConfig
from hybrid_sweep.trainer.forecast.confidence import CEILING
from hybrid_sweep.trainer.phases import DecisionPoint, Phase
from hybrid_sweep.trainer.train_step import StepGenerator, run_to_completion

DECIDING = ("max_predict_steps", "correction_interval", "confidence_threshold")
"""Settings that matter only where a phase is decided, as long as the interval is a fixed one."""
FROM_THE_START = [name for name in HybridConfig.model_fields if name not in DECIDING]
STATE = "state"
"""Part of the key under which the state at an edge's end is kept."""


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
        self._kind = f"sweep_{_hash(sweep_id)[:32]}"
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
        reports: on the way, one a cycle; None of a cycle after which none was due.
        finished: state, reason and columns of the result, where the run ended.
        crossing: else what decides where it leads on to from there; the state of the run is kept beside.
    """

    reports: list[dict[str, Any] | None]
    finished: dict[str, Any] | None
    crossing: DecisionPoint | None


EDGE = TypeAdapter(Edge)


class SharedPrefixRun:
    """A `HybridRun` that follows what others have trained as long as it would do the same, then trains.

    Its numbers are those of a trial on its own: time that was shared is charged to everyone who shares it.

    Args:
        make: starts the trial on its own.
        config: its settings, with a fixed correction schedule.
        seed: of the run.
        others: settings that the sweep tries too; where they part from these, the state is kept for them.
        open_ended: whether it may yet try others, for which the first decision is kept.
        store: of the sweep.

    Attributes:
        state: as of a `HybridRun`.
        reason: why it ended so.
    """

    def __init__(
        self,
        make: Callable[[], HybridRun],
        config: HybridConfig,
        seed: int,
        others: Iterable[HybridConfig],
        *,
        open_ended: bool,
        store: Store,
    ) -> None:
        self.state, self.reason = "running", ""
        self._make, self._config, self._store = make, config, store
        self._with_me = [other for other in others if other != config and _may_share(config, other)]
        self._open_ended = open_ended
        self._key = _hash({name: getattr(config, name) for name in FROM_THE_START}, _is_shut(config), seed)
        self._told: list[dict[str, Any] | None] = []  # since the newest parting
        self._told_before = 0
        self._parting = ""  # key of the edge that led to it, where others were followed
        self._trial: HybridRun | None = None
        self._result: dict[str, Any] | None = None
        self._edge = self._kept()
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

    def report(self) -> dict[str, Any] | None:
        """Return the report of the next cycle, trained or followed; at the end of the run, set `state`."""
        return run_to_completion(self.iter_report())

    def iter_report(self) -> StepGenerator[dict[str, Any] | None]:
        """As `report`, but leave the real steps to the caller, so that many can be taken at once."""
        while self._edge and self._edge.crossing and len(self._told) == len(self._edge.reports):
            self._choose(self._edge.crossing)
        report = self._edge.reports[len(self._told)] if self._edge else (yield from self._own.iter_report())
        self._told.append(report)
        if self._edge is None and self._own.done:
            result = yield from self._own.iter_result()  # first: it may add to the reason
            finished = {"state": self._own.state, "reason": self._own.reason, "result": result}
            self._keep(Edge(self._told, finished, None))
            self._end(finished)
        elif self._edge and self._edge.finished and len(self._told) == len(self._edge.reports):
            self._end(self._edge.finished)
        return report

    def result(self) -> dict[str, Any]:
        """Return the columns of the run, at the step that it has reached."""
        settings = {name: getattr(self._config, name) for name in SWEPT}
        result = {
            **(self._result or self._own.result()),
            **settings,
            "config": self._config.to_json(indent=None),
        }
        if self.following:
            result |= {"followed_seconds": result["train_seconds"], "eval_seconds": 0.0}
        return result

    def state_dict(self) -> dict[str, Any]:
        """Return the run as it stands between two cycles, for a `HybridRun` to go on from."""
        return self._own.state_dict()

    @property
    def _own(self) -> HybridRun:
        """The run itself; where others were followed so far, it is trained again from the newest parting."""
        if self._trial is None:
            self._trial = self._started()
            self._edge = None
            self._with_me = []
        return self._trial

    def _end(self, finished: dict[str, Any]) -> None:
        self.state, self.reason, self._result = (finished[name] for name in ("state", "reason", "result"))

    def _lead(self, trial: HybridRun) -> None:
        """Train from here on, and keep the state wherever others part."""
        self._trial, self._edge = trial, None
        if self._with_me or self._open_ended:
            trial.trainer.at_decisions(self._at_decision)

    def _choose(self, crossing: DecisionPoint) -> None:
        """At a parting that others have left behind: follow a run that went the same way, or lead."""
        self._parting = self._key
        self._part(crossing)
        self._edge = self._kept()
        if self._edge is None:
            self._lead(self._started())

    def _started(self) -> HybridRun:
        """Return the run as it stands, trained again from the newest parting of which the state is kept."""
        trial, again = self._make(), self._told_before + len(self._told)
        if self._parting:
            try:
                state = from_bytes(self._store.get(_hash(self._parting, STATE)) or b"")
                trial.load_state_dict(state, may_differ=DECIDING)
                trial.follow()
                again = len(self._told)
            except UserError:  # lost or damaged: all of it, and no run is to follow on this way
                trial, self._with_me = self._make(), []
        for _ in range(again):
            trial.report()
        return trial

    def _at_decision(self) -> None:
        """Keep the state where another run parts, or might."""
        trainer = self._own.trainer
        crossing = trainer.crossing()
        mine = crossing.next_phase(self._config)
        parts = any(crossing.next_phase(other) != mine for other in self._with_me)
        if parts or (self._open_ended and trainer.controller.phase is Phase.FULL):
            self._keep(Edge(self._told, None, crossing))
            self._part(crossing)
            if not self._with_me:
                trainer.at_decisions(None)

    def _part(self, crossing: DecisionPoint) -> None:
        """Go one's own way from a parting, with those who go the same."""
        mine = crossing.next_phase(self._config)
        self._with_me = [other for other in self._with_me if crossing.next_phase(other) == mine]
        self._open_ended = False
        self._key = _hash(self._key, crossing.step, mine)
        self._told_before += len(self._told)
        self._told = []

    def _keep(self, edge: Edge) -> None:
        if not (self._with_me or self._open_ended):
            return
        try:
            if edge.crossing:
                self._store.put(_hash(self._key, STATE), to_bytes(self._own.state_dict()))
            self._store.put(self._key, json.dumps(edge).encode())
        except (UserError, TypeError):  # what cannot be saved cannot be shared either
            self._with_me, self._open_ended = [], False

    def _kept(self) -> Edge | None:
        """Return the edge that goes on from here; None where there is none, or a damaged one."""
        data = self._store.get(self._key)
        try:
            return EDGE.validate_python(json.loads(data or b""))
        except (ValueError, RecursionError):
            return None


def _may_share(one: HybridConfig, other: HybridConfig) -> bool:
    alike = all(getattr(one, name) == getattr(other, name) for name in FROM_THE_START)
    return alike and _is_shut(one) == _is_shut(other)


def _is_shut(config: HybridConfig) -> bool:
    """Return whether no confidence opens the gate, so that the run hardly learns."""
    return config.confidence_threshold > CEILING


def _hash(*parts: Any) -> str:
    return sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
