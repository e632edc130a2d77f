"""Reading YAML without its traps: the core schema of YAML 1.2, unique text keys, errors with their line.

PyYAML follows YAML 1.1, where `off` is a truth value, `1e-3` a text and `010` an eight, and where the
second of two equal keys silently wins. A sweep file means what it shows.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any

import yaml

from hybrid_sweep import limits
from hybrid_sweep.errors import UserError, one_line


class _CoreLoader(yaml.SafeLoader):
    """Safe loader of the YAML 1.2 core schema that refuses repeated keys and keys that are no text."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(
                    problem=f"key {key!r} is not a text: put it in quotes", problem_mark=key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"key {key!r} appears twice: remove one", problem_mark=key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


_CoreLoader.yaml_implicit_resolvers = {}
_NUMBER_START = list("-+.0123456789")
for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+", _NUMBER_START),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", _NUMBER_START),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", _NUMBER_START),
):
    _CoreLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), _first)
_CoreLoader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: int(node.value))


def parse_yaml(text: str, source: str) -> Any:
    """Return the value that `text` spells.

    Args:
        text: one YAML document.
        source: where it came from, for the error: a file, or an option of the command line.

    Raises:
        UserError: with source and line, where it is not YAML; with source, where it is too large.
    """
    if len(text) > limits.CHARACTERS:
        raise UserError(
            f"{source} has {len(text):,} characters, and at most {limits.CHARACTERS:,} are allowed"
        )
    try:
        value = _CoreLoader(text).get_single_data()
        _measured(value, 0, {})
        return value
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        raise UserError(f"{source}{line}: {error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(f"{source} is not YAML: {one_line(error)}") from None


def _measured(value: Any, level: int, known: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """Return how many values a value holds, itself included, and on how many levels.

    Raises:
        ValueError: more than anything here can hold.
    """
    if not isinstance(value, list | dict):
        return 1, 0
    if id(value) not in known:
        inner = value.values() if isinstance(value, dict) else value
        parts = [_measured(part, level + 1, known) for part in inner] if level <= limits.LEVELS else []
        known[id(value)] = 1 + sum(part for part, _ in parts), 1 + max((d for _, d in parts), default=0)
    held, deep = known[id(value)]
    if level + deep > limits.LEVELS:
        raise ValueError(f"it has more than {limits.LEVELS} levels")
    if held > limits.PARTS:
        raise ValueError(f"it holds more than {limits.PARTS:,} values, each alias in full")
    return held, deep
