"""Points that a study has asked for, and those that it knows from earlier sweeps, as a journal keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from hybrid_sweep.search.space import Point
from hybrid_sweep.store.runs import need
from hybrid_sweep.trainer.config import current_values


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedPoint:
    """A point that the study wants to be run with every seed.

    Attributes:
        number: 0, 1, … in the sweep.
        point: its id and configuration.
        params: what lies on the axes of the space, of those axes that exist for this point.
        source: "preset", "point", "grid" or the sampler's name.
        masked: hashes of the points that were drawn before it and refused as unstable, each for the first
            time in the sweep.
    """

    number: int
    point: Point
    params: dict[str, Any]
    source: str
    masked: tuple[str, ...] = ()

    @classmethod
    def from_event(cls, event: Mapping[str, Any]) -> Self:
        """Read an `asked` event of a journal.

        Raises:
            UserError: it lacks a part without which the study cannot go on.
        """
        return cls(
            number=need(event, "number", int),
            point=Point(trial_id=event["trial_id"], config=current_values(need(event, "config", dict))),
            params=current_values(need(event, "params", dict)),
            source=need(event, "source", str),
            masked=tuple(event.get("masked", ())),
        )

    def event(self) -> dict[str, Any]:
        """Return the event that a journal keeps of it."""
        point = {"trial_id": self.point.trial_id, "config": self.point.config}
        return {
            "event": "asked",
            **point,
            "number": self.number,
            "params": self.params,
            "source": self.source,
            "masked": list(self.masked),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class PriorPoint:
    """A point of an earlier sweep, done on all its seeds: it is learned from, and not run again.

    Attributes:
        config: fields of `HybridConfig`.
        params: the point in this sweep's space; None where it is not one of its points.
        values: means of the columns that the study uses.
        source: folder and trial id.
    """

    config: dict[str, Any]
    params: dict[str, Any] | None
    values: dict[str, float | None]
    source: str

    @classmethod
    def from_event(cls, event: Mapping[str, Any]) -> Self:
        """Read a `known` event of a journal."""
        config, params, values = current_values(event["config"]), event["params"], event["values"]
        params = params and current_values(params)
        return cls(config=config, params=params, values=values, source=event["from"])

    def event(self) -> dict[str, Any]:
        """Return the event that a journal keeps of it."""
        known = {"config": self.config, "params": self.params, "values": self.values, "from": self.source}
        return {"event": "known", **known}
