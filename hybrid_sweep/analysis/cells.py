"""Cells of the tables that hold JSON: read by a model, for the file may be another program's."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from hybrid_sweep.errors import UserError, brief

_SETTINGS = TypeAdapter(dict[str, Any])
_BINS = TypeAdapter(list[Annotated[list[float], Field(min_length=3, max_length=3)]])


def settings_in(text: Any, trial_id: object = "a trial") -> dict[str, Any]:
    """Return the settings that a `config` cell holds; {} where it is empty.

    Raises:
        UserError: it is no JSON object.
    """
    settings: dict[str, Any] = _read(_SETTINGS, text or "{}", f"{trial_id} has no readable config")
    return settings


def bins_in(text: Any, trial_id: object = "a trial") -> list[list[float]]:
    """Return the rows [b, 3] that a `reliability` cell holds; [] where it is empty.

    Raises:
        UserError: it is no list of rows of numbers.
    """
    bins: list[list[float]] = _read(_BINS, text or "[]", f"{trial_id} has no readable reliability table")
    return bins


def _read(model: TypeAdapter[Any], text: Any, what: str) -> Any:
    try:
        return model.validate_json(text)
    except (ValidationError, TypeError) as error:
        first = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise UserError(f"the journal is corrupt: {what} ({brief(first)}); restore it from a copy") from None
