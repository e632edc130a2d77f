"""The axes of a search space: lists of values or ranges, and where each of them exists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import cached_property
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator

from hybrid_sweep import limits
from hybrid_sweep.errors import EXACT_AS_FLOAT, Section, UserError, sentence, shown, whole
from hybrid_sweep.trainer.config import current_value

_SHOWN_VALUES = 50


class Values(list[Any]):
    """A list that stays as it is made, and finds a value without a look at all the others."""

    @cached_property
    def _places(self) -> dict[Any, int]:
        places: dict[Any, int] = {}
        for place, value in enumerate(self):
            if _has_hash(value):
                places.setdefault(value, place)
        return places

    def place(self, value: Any) -> int | None:
        """Return the first place of what equals `value`; None where nothing does."""
        if _has_hash(value):
            return self._places.get(value)
        return self.index(value) if list.__contains__(self, value) else None

    def __contains__(self, value: object) -> bool:
        return self.place(value) is not None


def _has_hash(value: Any) -> bool:
    return not isinstance(value, list | dict)


def _number(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("write a number")
    return value


Number = Annotated[int | float, BeforeValidator(_number)]


Listed = Annotated[list[Any], Field(max_length=limits.POINTS), AfterValidator(Values)]


class _Conditional(Section):
    """An axis that exists only where every axis named in `when` has one of the values listed there."""

    when: dict[str, Listed] = Field(default_factory=dict)


class Choice(_Conditional):
    """Any of some values; the sampler takes evenly spaced numbers as an ordered axis."""

    values: Annotated[Listed, Field(min_length=1)]

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        validate_distinct(self.values)
        return self


class Range(_Conditional):
    """Numbers from `low` to `high`, both included; whole ones where both ends are whole."""

    def __init__(self, *ends: float, **fields: Any) -> None:
        if len(ends) > 2:
            raise UserError(f"Range takes low and high, and got {len(ends)} numbers: name the others")
        try:
            super().__init__(**fields | dict(zip(("low", "high"), ends, strict=False)))
        except ValidationError as error:
            if not ends:
                raise  # the sentence of the whole sweep file says more
            raise UserError(sentence(error, type(self))) from None

    low: Number
    high: Number
    step: Annotated[Number | None, Field(gt=0)] = None
    log: bool = False

    @property
    def whole(self) -> bool:
        """Whether only whole numbers are meant."""
        return all(isinstance(value, int) for value in (self.low, self.high, self.step or 1))

    @model_validator(mode="after")
    def _can_be_drawn_from(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"low={self.low} is not below high={self.high}: swap or widen them")
        if self.log and self.low <= 0:
            raise ValueError(f"low={self.low} has no logarithm: give a low above 0, or log: false")
        if self.log and self.step is not None:
            raise ValueError("log and step exclude each other: keep one")
        if max(abs(self.low), abs(self.high)) > EXACT_AS_FLOAT:
            raise ValueError(
                f"a range beyond ±2^53 is not drawn from exactly (it is {self.low} to {self.high}): "
                "list the values"
            )
        low, high, step = (Decimal(str(value)) for value in (self.low, self.high, self.step or 0))
        if step > high - low:  # in decimals, as they were written: 0.03 - 0.01 is not 0.02 in floats
            raise ValueError(f"step={self.step} is wider than the range from {self.low} to {self.high}")
        if step and (high - low) / step > EXACT_AS_FLOAT:
            raise ValueError(
                f"step={self.step} makes more than 2^53 values, which are not told apart: leave the step out"
            )
        return self


def _axis(value: Any) -> Any:
    if isinstance(value, Choice | Range):
        return value
    if isinstance(value, list) and value:
        if len(value) > limits.POINTS:
            raise ValueError(
                f"it lists {len(value):,} values, and at most {limits.POINTS:,} are allowed: "
                "write {low, high, step} instead"
            )
        validate_distinct(value)
        return Values(value)
    if isinstance(value, Mapping):
        return Choice.model_validate(value) if "values" in value else Range.model_validate(value)
    raise ValueError("write a list of the values to try, such as [75] or [50, 75], or {low: 50, high: 150}")


Axis = Annotated[Any, BeforeValidator(_axis)]
"""A list of values, a `Choice` or a `Range`."""


def in_current_values(axis: Any, field: str) -> Any:
    """Return the axis of a setting with values that were called otherwise before by their present names."""
    changes: dict[str, Any] = {}
    if when := condition(axis):
        changes["when"] = {
            other: Values([current_value(other, value) for value in allowed])
            for other, allowed in when.items()
        }
    if isinstance(axis, Range):
        return axis.model_copy(update=changes)
    values = Values([current_value(field, value) for value in values_of(axis) or []])
    return axis.model_copy(update={**changes, "values": values}) if isinstance(axis, Choice) else values


def in_whole_numbers(axis: Any, field: str) -> Any:
    """Return the axis of a setting that takes whole numbers only, each of its numbers as one.

    Raises:
        ValueError: the step of a range is none.
    """
    if isinstance(axis, Range):
        numbers = {name: whole(getattr(axis, name)) for name in ("low", "high", "step")}
        if isinstance(step := numbers["step"], float):
            raise ValueError(
                f"{field} takes whole numbers, and step={step:g} leads between them: "
                f"write step: {max(round(step), 1)}, or another whole number"
            )
        return axis.model_copy(update=numbers)
    values = [whole(value) for value in values_of(axis) or []]
    return axis.model_copy(update={"values": Values(values)}) if isinstance(axis, Choice) else Values(values)


def validate_distinct(values: list[Any]) -> None:
    """Refuse a list that holds a value twice.

    Raises:
        ValueError: with the first such value.
    """
    listed = Values(values)
    for index, value in enumerate(listed):
        if _has_hash(value) and listed.place(value) != index:
            raise ValueError(f"it holds {shown(value)} twice: remove one")


def condition(axis: Any) -> dict[str, list[Any]]:
    """Return what must hold for the axis to exist; {} where it always does."""
    return axis.when if isinstance(axis, _Conditional) else {}


def values_of(axis: Any) -> Values | None:
    """Return the values that an axis lists; None of a range."""
    if isinstance(axis, Range):
        return None
    values = axis.values if isinstance(axis, Choice) else axis
    return values if isinstance(values, Values) else Values(values)


def samples_of(axis: Any) -> list[Any]:
    """Return values that stand for the axis where its settings are checked: all, or both ends."""
    return [axis.low, axis.high] if isinstance(axis, Range) else list(values_of(axis) or [])


def validate_conditions(space: Mapping[str, Any]) -> None:
    """Refuse a space in which an axis can never exist, or whose axes depend on each other.

    Raises:
        ValueError: with the axis, and what to do.
    """
    for field, axis in space.items():
        for other, allowed in condition(axis).items():
            if other not in space:
                raise ValueError(
                    f"space.{field} depends on {other!r}, which is no axis: add it, or remove `when`"
                )
            values = values_of(space[other])
            if values is None:
                raise ValueError(
                    f"space.{field} depends on {other!r}, a range: only a list of values can decide"
                )
            if not any(value in values for value in allowed):
                raise ValueError(
                    f"space.{field} needs {other} to be one of {shown(allowed)}, "
                    f"but it is one of {shown(values)}: it would never exist"
                )
    if circle := set(space) - set(in_order(space)):
        raise ValueError(f"{' and '.join(sorted(circle))} depend on each other: remove one `when`")


def in_order(space: Mapping[str, Any]) -> list[str]:
    """Return the axes so that each comes after those that it depends on; those in a circle are left out."""
    order: list[str] = []
    while ready := [f for f, axis in space.items() if f not in order and set(condition(axis)) <= set(order)]:
        order += ready
    return order


def described(axis: Any) -> str:
    """Return an axis as a reader would write it."""
    if isinstance(axis, Range):
        how = ", logarithmic" if axis.log else f", step {axis.step:g}" if axis.step else ""
        text = f"{axis.low:g} to {axis.high:g}{how}"
    else:
        text = few(values_of(axis) or [])
    only = " and ".join(f"{other} is {few(v, ' or ')}" for other, v in condition(axis).items())
    return f"{text} (only where {only})" if only else text


def few(values: Sequence[Any], between: str = ", ") -> str:
    """Return values for a reader, the first ones and how many follow where they are many."""
    rest = len(values) - _SHOWN_VALUES
    return between.join(map(str, values[:_SHOWN_VALUES])) + (f" and {rest:,} more" if rest > 0 else "")
