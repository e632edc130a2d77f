"""What an event of a journal holds: the model that each line has to fit, no matter who wrote it."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import ConfigDict, Field, TypeAdapter, with_config
from typing_extensions import TypedDict  # pydantic takes no other before Python 3.12

from hybrid_sweep.paths import IDENTIFIER

Seed = Annotated[int, Field(strict=True, ge=0, lt=2**63)]
Count = Annotated[int, Field(strict=True, ge=0, lt=2**63)]
Attempt = Annotated[int, Field(strict=True, ge=1, lt=2**31)]
TrialId = Annotated[str, Field(pattern=rf"^({IDENTIFIER})?$")]
"""Of a configuration; controls of a confirmation have an empty one."""
State = Literal["done", "diverged", "pruned", "failed"]
Mapping = dict[str, Any]
_OPEN = ConfigDict(extra="allow")


@with_config(_OPEN)
class _Any(TypedDict):
    event: str
    at: NotRequired[str]


class _OfRun(_Any):
    trial_id: TrialId
    seed: Seed


class _Asked(_Any):
    trial_id: TrialId
    config: NotRequired[Mapping]
    number: NotRequired[Count | None]
    params: NotRequired[Mapping]
    source: NotRequired[str | None]
    masked: NotRequired[list[str]]


_From = TypedDict("_From", {"from": str})


class _Known(_From, _Any):
    config: Mapping
    params: Mapping | None
    values: dict[str, float | None]


class _Started(_OfRun):
    config: Mapping
    attempt: NotRequired[Attempt | None]
    arm: NotRequired[str | None]


class _Reported(_OfRun):
    report: Mapping


class _Interrupted(_OfRun):
    result: Mapping


class _Finished(_OfRun):
    state: State
    reason: NotRequired[str | None]
    result: NotRequired[Mapping]


@with_config(_OPEN)
class _Curve(TypedDict):
    steps: Annotated[list[Count], Field(min_length=1)]
    backward_calls: Annotated[list[Count], Field(min_length=1)]
    seconds: list[float]
    val_loss: list[float]
    val_metric: NotRequired[list[float | None] | None]
    passes: NotRequired[Annotated[float, Field(gt=0)]]
    test: dict[str, float | None]
    trace: NotRequired[list[tuple[str, Count, Count, Count] | tuple[str, Count, Count]]]
    forward_only_calls: NotRequired[Count]


class _Ran(_OfRun):
    arm: str
    steps: Count
    curve: _Curve


def _model(kind: Any) -> TypeAdapter[dict[str, Any]]:
    return TypeAdapter(kind)


ANY = _model(_Any)
"""Of an event of a kind that is not known here: later versions may have more."""
MODELS = {
    "asked": _model(_Asked),
    "known": _model(_Known),
    "started": _model(_Started),
    "reported": _model(_Reported),
    "lost": _model(_OfRun),
    "interrupted": _model(_Interrupted),
    "retried": _model(_OfRun),
    "finished": _model(_Finished),
    "ran": _model(_Ran),
}
