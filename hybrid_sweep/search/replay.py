"""The same study over the same journal: asked again for real, or refused where it would be another one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from hybrid_sweep.errors import UserError
from hybrid_sweep.search.asked import AskedPoint
from hybrid_sweep.search.study import Study
from hybrid_sweep.spec.sweep import SweepSpec

MAY_CHANGE = (
    "about",
    "checkpoint_seconds",
    "concurrency",
    "controls",
    "max_retries",
    "share",
    "stop_when_flat",
    "storage",
    "trial_timeout",
    "trials",
    "tuning_trials",
)
"""Settings with which a sweep may go on that it did not begin with: they choose no point."""


def replay(
    spec: SweepSpec, sweep_id: str, steps: int, events: Iterable[Mapping[str, Any]]
) -> list[AskedPoint]:
    """Ask a sweep's points again, with its journal for the results; return them.

    Args:
        spec: the sweep's.
        sweep_id: the sweep's.
        steps: logical steps of a run.
        events: of its journal, with the reports where runs were stopped early.

    Raises:
        UserError: a point comes out as another than was asked; the first is named.
    """
    study = Study(spec, sweep_id, steps)
    replayed: list[AskedPoint] = []
    for event in events:
        if event["event"] != "asked":
            study.apply(event)
            continue
        recorded = AskedPoint.from_event(event)
        asked = study.ask(trials=recorded.number + 1)
        if asked != recorded:
            now = (
                "nothing is left to ask" if asked is None else f"it is {asked.point.trial_id} {asked.params}"
            )
            raise UserError(
                f"ask {recorded.number} does not replay: it was {recorded.point.trial_id} {recorded.params} "
                f"and now {now}; take the versions of Optuna and this package that the manifest names"
            )
        replayed.append(recorded)
    return replayed


def validate_same_space(spec: SweepSpec, recorded: SweepSpec) -> None:
    """Refuse to carry a sweep on with settings that make it another one.

    Raises:
        UserError: with each setting that differs, as it was and as it is.
    """
    was, now = recorded.model_dump(mode="json"), spec.model_dump(mode="json")
    fixed = was.keys() - set(MAY_CHANGE)
    changes = list(_differences({k: was[k] for k in sorted(fixed)}, now))
    if changes:
        raise UserError(
            f"a sweep cannot go on as another one: {'; '.join(changes)}; only {', '.join(MAY_CHANGE)} may "
            f"change: put the rest back, or begin a new sweep with this one in warm_start"
        )


def _differences(was: Mapping[str, Any], now: Mapping[str, Any], above: str = "") -> Iterator[str]:
    for name in [*was, *((name for name in now if name not in was) if above else ())]:
        before, after = was.get(name, "absent"), now.get(name, "absent")
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            yield from _differences(before, after, f"{above}{name}.")
        elif before != after:
            yield f"{above}{name} was {before} and is {after}"
