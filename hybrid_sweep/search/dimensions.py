"""The axes of a space as Optuna's distributions, and where a configuration lies on them."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from itertools import pairwise
from math import isclose, prod
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from hybrid_sweep.errors import EXACT_AS_FLOAT
from hybrid_sweep.spec.axes import Range, condition, in_order, values_of


def distribution(axis: Any) -> BaseDistribution:
    """Return what a sampler draws from: a list is categorical unless its numbers are equally spaced."""
    if isinstance(axis, Range):
        many = count(axis)
        high = axis.high if many is None else value_at(axis, many - 1)
        if axis.whole:
            return IntDistribution(int(axis.low), int(high), step=int(axis.step or 1), log=axis.log)
        return FloatDistribution(axis.low, high, step=axis.step, log=axis.log)
    values: list[Any] = values_of(axis) or []
    step = _spacing(values)
    if step is None:
        return CategoricalDistribution(values)
    if all(isinstance(value, int) for value in values):
        return IntDistribution(min(values), max(values), step=int(step))
    return FloatDistribution(min(values), max(values), step=float(step))


def count(axis: Any) -> int | None:
    """Return how many values an axis has; None where they are uncountable."""
    values = values_of(axis)
    if values is not None:
        return len(values)
    step = _step(axis)
    return None if step is None else int((_decimal(axis.high) - _decimal(axis.low)) // step) + 1


def value_at(axis: Any, index: int) -> Any:
    """Return one of the values that `count` counted, free of the noise of adding floats."""
    values = values_of(axis)
    if values is not None:
        return values[index]
    value = _decimal(axis.low) + index * (_step(axis) or 0)
    return int(value) if axis.whole else float(value)


def nearest(axis: Any, value: Any) -> Any:
    """Return the value of the axis that a drawn one stands for: the same, or the one it was rounded from."""
    values = values_of(axis)
    if values is not None:
        place = values.place(value)
        return min(values, key=lambda listed: abs(listed - value)) if place is None else values[place]
    many, step = count(axis), _step(axis)
    if many is None or step is None:
        return float(value)
    return value_at(axis, min(max(round((value - axis.low) / float(step)), 0), many - 1))


def exists(space: Mapping[str, Any], field: str, params: Mapping[str, Any]) -> bool:
    """Return whether the axis exists beside `params`, the values of those that it depends on."""
    conditions = condition(space[field]).items()
    return all(other in params and params[other] in allowed for other, allowed in conditions)


def placed(space: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a configuration, given by the values of all its fields, lies on the axes of a space."""
    params: dict[str, Any] = {}
    for field in in_order(space):
        if exists(space, field, params) and _lies_on(space[field], values[field]):
            params[field] = nearest(space[field], values[field])
    return params


def is_whole(space: Mapping[str, Any], params: Mapping[str, Any]) -> bool:
    """Return whether `params` has a value for every axis that exists beside the others."""
    return all(field in params for field in space if exists(space, field, params))


def size(space: Mapping[str, Any]) -> int | None:
    """Return how many combinations a space has, conditions aside; None where they are uncountable."""
    counts = [count(axis) for axis in space.values()]
    return None if None in counts else prod(many for many in counts if many is not None)


def combination(space: Mapping[str, Any], index: int) -> dict[str, Any]:
    """Return the parameters of one of the combinations that `size` counted."""
    params: dict[str, Any] = {}
    for field in in_order(space):
        index, digit = divmod(index, count(space[field]) or 1)
        if exists(space, field, params):
            params[field] = value_at(space[field], digit)
    return params


def _lies_on(axis: Any, value: Any) -> bool:
    values = values_of(axis)
    if values is not None:
        return value in values
    if isinstance(value, bool) or not isinstance(value, int | float) or not axis.low <= value <= axis.high:
        return False
    return isclose(nearest(axis, value), value, rel_tol=1e-9)


def _spacing(values: list[Any]) -> Decimal | None:
    """Return the one distance between neighbours, once sorted; None where there is none."""
    if len(values) < 2 or any(isinstance(v, bool) or not isinstance(v, int | float) for v in values):
        return None
    if max(map(abs, values)) > EXACT_AS_FLOAT:  # samplers count in floats
        return None
    exact = sorted(_decimal(value) for value in values)
    gaps = {after - before for before, after in pairwise(exact)}
    return gaps.pop() if len(gaps) == 1 else None


def _step(axis: Range) -> Decimal | None:
    step = axis.step or (1 if axis.whole else None)
    return None if step is None else _decimal(step)


def _decimal(value: float) -> Decimal:
    return Decimal(str(value))
