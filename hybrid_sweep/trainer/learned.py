"""What a rule has learned, as plain data and back."""

from __future__ import annotations

from collections import deque
from dataclasses import fields
from typing import Any


def as_plain(rule: Any) -> dict[str, Any]:
    """Return the fields of a dataclass as numbers and lists."""
    values = {f.name: getattr(rule, f.name) for f in fields(rule)}
    return {name: list(value) if isinstance(value, deque) else value for name, value in values.items()}


def restore(rule: Any, values: dict[str, Any]) -> None:
    """Take up what `as_plain` returned."""
    for name, value in values.items():
        present = getattr(rule, name)
        setattr(rule, name, deque(value, present.maxlen) if isinstance(present, deque) else value)
