"""Study: what to try next and when to stop a run, decided by the seed and what has happened, nothing else."""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from math import gcd
from typing import Any

from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from hybrid_sweep.analysis.live_front import LiveFront
from hybrid_sweep.errors import UserError
from hybrid_sweep.search.asked import AskedPoint, PriorPoint
from hybrid_sweep.search.dimensions import combination, is_whole, placed, size
from hybrid_sweep.search.halving import Halving, Key
from hybrid_sweep.search.mask import unstable
from hybrid_sweep.search.outcome import RunOutcome, TrialOutcome, finite, judge
from hybrid_sweep.search.sampler import SamplerStudy
from hybrid_sweep.search.space import Point, complete_hash, config_hash, config_of, given, grid, numbered_id
from hybrid_sweep.spec.sweep import DEFAULT_TRIALS, SweepSpec
from hybrid_sweep.trainer.config import HybridConfig

DRAWS = 20
"""How often a sampler is asked for a point that is new."""
RANDOM_DRAWS = 1000
"""How often any point is then drawn, in a space that cannot be counted."""
MOST_GRID_LOOKUPS = 100_000
"""How many combinations are looked at instead, in a space that can be counted."""


@dataclass(frozen=True, slots=True)
class _Choice:
    """A point before it is asked; one without an id gets one with its number."""

    source: str
    config: dict[str, Any]
    params: dict[str, Any]
    trial_id: str = ""


@dataclass(slots=True)
class _Open:
    """A point that was asked and has not been told; the sampler has no trial of one outside its space."""

    asked: AskedPoint
    warmup_steps: int
    trial: Trial | None = None
    runs: dict[int, RunOutcome] = field(default_factory=dict)
    last: dict[int, dict[str, Any]] = field(default_factory=dict)


class Study:
    """Asks for points, takes reports and results, and teaches its sampler with them.

    The sampler is made again for every ask, with a seed made of the sweep's seed and the number of the ask:
    a study to which a journal's events were applied asks exactly what the one that wrote them would have.
    Not safe for threads.

    Args:
        spec: the sweep.
        sweep_id: for the name of the study.
        steps: logical steps of a run.
        on_told: called with each point as it is told, for a copy of the study elsewhere, and again for
            those that `restore` finds told; user attribute `trial_id` says which it is.

    Attributes:
        asked: points asked so far.
        masked: hashes of the points that were drawn and refused as unstable, in order.

    Raises:
        UserError: a point of the spec that `HybridConfig` refuses.
    """

    def __init__(
        self,
        spec: SweepSpec,
        sweep_id: str,
        steps: int,
        *,
        on_told: Callable[[FrozenTrial], None] | None = None,
    ) -> None:
        self.spec = spec
        self.asked = 0
        self.masked: dict[str, None] = {}
        self._on_told = on_told
        self._memory = SamplerStudy(spec, f"{spec.name}-{sweep_id}")
        self._queue = _queue(spec)
        self._seen: set[str] = set()
        self._inside = sum(is_whole(spec.space, choice.params) for choice in self._queue.values())
        self._open: dict[str, _Open] = {}
        self._failed: dict[str, _Open] = {}
        self._stopped: set[str] = set()
        self._behaviours: dict[Any, str] = {}
        self._front = LiveFront(spec.hypervolume_reference.pair)
        self._since_growth = 0
        self._halving = Halving(spec.early_stopping, steps) if spec.early_stopping else None

    @property
    def budget(self) -> int:
        """How many points the sweep has, as far as the space holds as many."""
        most = self.asked + len(self._queue)
        if self.spec.sampler == "grid":
            return min(self.spec.trials or most, most)
        wanted = self.spec.trials or max(DEFAULT_TRIALS, most)
        combinations = size(self.spec.space)
        return wanted if combinations is None else min(wanted, most + max(combinations - self._inside, 0))

    @property
    def has_more(self) -> bool:
        """Whether another point may be asked."""
        return self.asked < self.budget and not self.flat

    @property
    def hypervolume(self) -> float:
        """The area beyond the reference point that the points done so far dominate."""
        return self._front.hypervolume

    @property
    def flat(self) -> bool:
        """Whether the hypervolume has not grown over so many points that the sweep ends."""
        patience = self.spec.stop_when_flat
        return patience is not None and self._since_growth >= patience

    @property
    def slow_to_ask(self) -> bool:
        """Whether an ask takes so long that it is better done before a slot is free."""
        return self.spec.sampler == "gp"

    def ask(self, *, trials: int | None = None) -> AskedPoint | None:
        """Return the next point, none of those before; None where the budget or the space is spent.

        Args:
            trials: another budget than the spec's.
        """
        if self.asked >= (self.budget if trials is None else trials):
            return None
        number, known = self.asked, len(self.masked)
        choice = next(iter(self._queue.values())) if self._queue else self._draw(number)
        if choice is None:
            return None
        swept = choice.config.keys() - self.spec.trainer.keys()
        trial_id = choice.trial_id or numbered_id(number, HybridConfig(**choice.config), swept)
        point = Point(trial_id=trial_id, config=choice.config)
        masked = tuple(self.masked)[known:]
        asked = AskedPoint(
            number=number, point=point, params=choice.params, source=choice.source, masked=masked
        )
        self._begin(asked)
        return asked

    def report(self, key: Key, report: Mapping[str, Any]) -> bool:
        """Take a run's report; return whether the run is to be stopped."""
        trial_id, seed = key
        if trial_id in self._stopped:
            return True
        point = self._open.get(trial_id)
        if point is None:
            return False
        point.last[seed] = _partial(report, "step")
        if self._halving and self._halving.report(key, report, point.warmup_steps):
            self._stopped.add(trial_id)
            return True
        return False

    def finish(self, key: Key, state: str, reason: str, result: Mapping[str, Any]) -> None:
        """Take the end of a run; the sampler learns of the point when all its runs have ended.

        A point that was stopped is told with the first end, for its other seeds need not run.
        """
        trial_id, seed = key
        if self._halving:
            self._halving.forget(key)
        point = self._open.get(trial_id)
        if point is None:
            return
        if state == "pruned":
            point.last.setdefault(seed, _partial(result, "steps"))
        point.runs[seed] = RunOutcome.from_result(state, reason, result)
        if len(point.runs) == self.spec.repeats:
            self._tell(point, judge(list(point.runs.values()), self.spec.constraints))
        elif trial_id in self._stopped:
            self._tell(point, TrialOutcome(TrialState.PRUNED, reason=reason))

    def retry(self, key: Key) -> None:
        """Open a failed run again."""
        trial_id, seed = key
        if point := self._failed.pop(trial_id, None):
            self._enter(point)
        if point := self._open.get(trial_id):
            point.runs.pop(seed, None)

    def learn(self, known: PriorPoint) -> None:
        """Take up a point of an earlier sweep: it is not asked, and the sampler learns from it if it can."""
        self._note(known.config, known.params)
        if known.params is not None:
            told = judge([RunOutcome.from_result("done", "", known.values)], self.spec.constraints)
            self._memory.tell(self._memory.open(known.params), told)

    def wants(self, trial_id: str) -> bool:
        """Return whether runs of the point are still of use: False once it was stopped."""
        return trial_id not in self._stopped

    def restore(self, events: Iterable[Mapping[str, Any]]) -> None:
        """Apply a journal's events, in order, without drawing: the study then goes on from there.

        Raises:
            UserError: as `apply`.
        """
        for event in events:
            self.apply(event)

    def apply(self, event: Mapping[str, Any]) -> None:
        """Apply one event of a journal; those that are not the study's business change nothing.

        Raises:
            UserError: it lacks what its kind must have, or asks for a point that is not the next one.
        """
        try:
            match event["event"]:
                case "asked":
                    self._begin(self._next(AskedPoint.from_event(event)))
                case "known":
                    self.learn(PriorPoint.from_event(event))
                case "reported":
                    self.report(_key(event), event["report"])
                case "finished":
                    self.finish(_key(event), event["state"], event.get("reason") or "", event["result"])
                case "retried":
                    self.retry(_key(event))
        except KeyError as error:
            raise _corrupt(f"a {event['event']!r} event lacks {error}") from None
        except (TypeError, AttributeError) as error:
            raise _corrupt(f"a {event['event']!r} event holds what it must not ({error})") from None

    def _next(self, asked: AskedPoint) -> AskedPoint:
        """Return a point that was asked long ago, where it is the next one and lies where it says.

        Raises:
            UserError: it does not; a line is lost or doubled, or was changed.
        """
        if asked.number != self.asked:
            raise _corrupt(f"point {asked.number} is asked where point {self.asked} must be")
        lies = placed(self.spec.space, HybridConfig(**asked.point.config).model_dump())
        if asked.params != lies:
            raise _corrupt(f"point {asked.number} is asked as {asked.params}, and its settings are {lies}")
        return asked

    def _begin(self, asked: AskedPoint) -> None:
        """Enter a point, whether it was chosen just now or long ago."""
        self._note(asked.point.config, asked.params)
        self.masked.update(dict.fromkeys(asked.masked))
        self.asked = asked.number + 1
        self._enter(_Open(asked, HybridConfig(**asked.point.config).warmup_steps))

    def _enter(self, point: _Open) -> None:
        self._open[point.asked.point.trial_id] = point
        if is_whole(self.spec.space, point.asked.params):
            point.trial = self._memory.open(point.asked.params)

    def _note(self, config: Mapping[str, Any], params: Mapping[str, Any] | None) -> None:
        """Keep a configuration from being asked (again)."""
        digest = complete_hash(config)
        queued = self._queue.pop(digest, None)
        if digest not in self._seen and queued is None and params is not None:
            self._inside += is_whole(self.spec.space, params)
        self._seen.add(digest)

    def _draw(self, number: int) -> _Choice | None:
        """Return a new point: the sampler's choice, or after many that are not new, any that is left."""
        if self.spec.sampler == "grid":
            return None
        for draw in range(DRAWS):
            if choice := self._new(self._memory.draw(self._seed(number, draw))):
                return choice
        combinations = size(self.spec.space)
        if combinations is None:
            draws = range(DRAWS, DRAWS + RANDOM_DRAWS)
            left = (self._memory.draw(self._seed(number, draw), at_random=True) for draw in draws)
        else:
            places = _shuffled(combinations, self._seed(number, DRAWS))
            left = (combination(self.spec.space, place) for place in places)
        return next((choice for params in left if (choice := self._new(params))), None)

    def _new(self, params: dict[str, Any]) -> _Choice | None:
        """Return the point with these parameters; None where it was seen before, or is masked."""
        config = config_of({**self.spec.trainer, **params})
        digest = complete_hash(config)
        if digest in self._seen or digest in self.masked:
            return None
        if unstable(self.spec.mask, config):
            self.masked[digest] = None
            return None
        return _Choice(self.spec.sampler, config, params)

    def _seed(self, number: int, draw: int) -> int:
        return int.from_bytes(sha256(f"{self.spec.seed} {number} {draw}".encode()).digest()[:4])

    def _tell(self, point: _Open, told: TrialOutcome) -> None:
        trial_id = point.asked.point.trial_id
        del self._open[trial_id]
        if point.trial is not None:
            self._memory.tell(point.trial, told)
            point.trial = None
        grown = False
        if told.counts and told.values:
            self._front.add(trial_id, "done", *told.values)
            grown = self._front.growth(1) > 0
        if told.state is TrialState.FAIL:
            self._failed[trial_id] = point
        else:
            self._since_growth = 0 if grown else self._since_growth + 1
        first = trial_id
        if told.counts and all(run.behaviour for run in point.runs.values()):
            behaviours = tuple(sorted((seed, run.behaviour) for seed, run in point.runs.items()))
            first = self._behaviours.setdefault(behaviours, trial_id)
        if self._on_told:
            self._on_told(self._frozen(point, told, first))

    def _frozen(self, point: _Open, told: TrialOutcome, first: str) -> FrozenTrial:
        """Return the point as Optuna's other tools know it; `first` behaved as it does, before it."""
        asked = point.asked
        attributes: dict[str, Any] = {
            "trial_id": asked.point.trial_id,
            "number": asked.number,
            "source": asked.source,
            "config": asked.point.config,
        }
        if told.reason:
            attributes["reason"] = told.reason
        if told.state is TrialState.PRUNED:
            attributes["partial"] = {str(seed): last for seed, last in point.last.items()}
        if first != asked.point.trial_id:
            attributes["same_behaviour_as"] = first
        return create_trial(
            state=told.state,
            values=told.values,
            params=asked.params,
            distributions={name: self._memory.distributions[name] for name in asked.params},
            user_attrs=attributes,
            constraints=dict(told.constraints),
        )


def _queue(spec: SweepSpec) -> OrderedDict[str, _Choice]:
    """Return what is asked before anything is drawn, by its hash: presets, points, the grid."""
    choices = [(source, "", config) for source, config in given(spec)]
    if spec.sampler == "grid":
        choices += [("grid", point.trial_id, point.config) for point in grid(spec)]
    queue: OrderedDict[str, _Choice] = OrderedDict()
    for source, trial_id, config in choices:
        whole = HybridConfig(**config).model_dump()
        choice = _Choice(source, config, placed(spec.space, whole), trial_id)
        queue.setdefault(config_hash(whole), choice)
    return queue


def _shuffled(many: int, seed: int) -> Iterable[int]:
    """Return 0 … many−1 in an order that looks like none, at most `MOST_GRID_LOOKUPS` of them."""
    rng = random.Random(seed)
    start, stride = rng.randrange(many), rng.randrange(1, many + 1)
    while gcd(stride, many) > 1:
        stride = rng.randrange(1, many + 1)
    return ((start + index * stride) % many for index in range(min(many, MOST_GRID_LOOKUPS)))


def _corrupt(what: str) -> UserError:
    return UserError(f"the journal is corrupt: {what}; restore it from a copy")


def _key(event: Mapping[str, Any]) -> Key:
    return event["trial_id"], event["seed"]


def _partial(values: Mapping[str, Any], step: str) -> dict[str, Any]:
    """Return how far a run has come, for a reader of one that was stopped."""
    known = {name: finite(values.get(name)) for name in ("speedup_counted", "quality")}
    return {"step": values.get(step), **known}
