"""The one error that a user sees as a sentence, and the base of every validated settings object."""

from __future__ import annotations

import re
from difflib import get_close_matches
from reprlib import Repr
from typing import Any, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from hybrid_sweep.credentials import without_secrets

LONGEST = 1000
"""Characters of what an error says, where a reason is told."""
TRACEBACK = "Traceback (most recent call last)"
_NO_TEXT = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    r"|(?:\x1b[\]P^_X]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c\n]*(?:\x07|\x1b\\|\x9c)"
    r"|[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f]|[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)
"""Commands to a terminal (colours, titles), control characters that are no space, and turns of direction."""
_BREAKS = re.compile(r"[\r\x0b\x0c\x1c-\x1f\x85\u2028\u2029]")
"""What breaks a line, or goes back in it, and is no line feed."""


class UserError(ValueError):
    """A mistake the user can fix: one sentence with the value, what is allowed, and what to do next.

    The command line prints it without a traceback and exits with code 2.
    """


def one_line(error: object) -> str:
    """Return what an error says, in one line without colours, and without what no file can hold."""
    try:
        text = str(error)
    except Exception as second:
        return f"(its text cannot be read: {type(second).__name__})"
    return " ".join(without_secrets(safe(text)).split())


def brief(text: object, longest: int = LONGEST) -> str:
    """Return `one_line`, cut where it is very long, with its whole length."""
    line = one_line(text)
    rest = f"… ({len(line):,} characters)"
    return line if len(line) <= longest else f"{line[: longest - len(rest)]}{rest}"


def safe(text: str) -> str:
    """Return `text` as a terminal and a file may have it: printable characters, tabs and line feeds."""
    return text if text.isprintable() else encodable(_BREAKS.sub(" ", _NO_TEXT.sub("", text)))


def without_commands(value: Any) -> Any:
    """Return what a file held, without characters that command a terminal, in its texts at any depth."""
    if isinstance(value, str):
        return safe(value)
    if isinstance(value, list):
        return [without_commands(inner) for inner in value]
    if isinstance(value, dict):
        return {without_commands(key): without_commands(inner) for key, inner in value.items()}
    return value


def encodable(text: str) -> str:
    """Return `text` with every lone surrogate escaped, for no file can hold one."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def named(error: BaseException) -> str:
    """Return `TypeOfTheError: what it says`, in one line that is cut where it is very long.

    Of a traceback in that text, as errors of loaders' processes have it, the last line is told.
    """
    text = one_line(error)
    if TRACEBACK in text:
        text = one_line(str(error).rstrip().rpartition("\n")[2])
    cut = brief(text)
    return f"{type(error).__name__}: {cut}" if cut else type(error).__name__


def unknown_name(kind: str, name: str, known: list[str]) -> UserError:
    """Return the error for a name that is not in `known`, with the list of the good ones."""
    close = get_close_matches(name, known, n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    return UserError(f"unknown {kind} {name!r}{hint}; known: {', '.join(known)}")


EXACT_AS_FLOAT = 2**53
"""The largest whole number of which a float is surely no other: JavaScript and samplers count in floats."""


def whole(value: Any) -> Any:
    """Return a whole number whatever its spelling, 1e1 or 10.0; anything else as it is."""
    if isinstance(value, float) and value.is_integer() and abs(value) <= EXACT_AS_FLOAT:
        return int(value)
    return value


Whole = BeforeValidator(whole)
"""Of a strict int: takes a whole number in any spelling."""


class SweepBroken(RuntimeError):
    """What a sweep runs on has died; what was written is kept, and the message says how to go on.

    The exit code is 1.
    """


class Settings(BaseModel):
    """Immutable, keyword-only values that refuse nonsense in one sentence.

    Raises:
        UserError: on an unknown field, or a value of the wrong type or out of range.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise UserError(sentence(error, type(self))) from None


class Section(BaseModel):
    """A part of a settings file; its problems are told by the whole."""

    model_config = Settings.model_config


def sentence(error: ValidationError, model: type[BaseModel]) -> str:
    """Turn the first problem of a pydantic error into `field=value: what is allowed`."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    value = first["input"]
    if first["type"] == "extra_forbidden":
        name = str(first["loc"][-1])
        known = _fields_at(model, first["loc"][:-1])
        return str(unknown_name("key", name, known) if known else f"unknown key {where!r}")
    if first["type"] == "missing":
        return f"{where} is missing: add it"
    message = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if not where:
        return message
    return f"{where}={shown(value)} is not allowed: {message}{_range(model, first['loc'])}"


def shown(value: Any) -> str:
    """Return a value as Python writes it, cut to a length that a sentence bears.

    YAML's anchors make values that are short in a file, and in full fill the memory.
    """
    short = Repr()
    short.maxlevel, short.maxlist, short.maxdict = 2, 20, 20
    short.maxstring = short.maxother = short.maxlong = 200
    return short.repr(value)


def _fields_at(model: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    """Return the field names of the settings object that `path` leads to, or [] where there is none."""
    owner = _owner(model, path)
    return sorted(owner.model_fields) if owner else []


def _range(model: type[BaseModel], path: tuple[int | str, ...]) -> str:
    """Return ` (allowed: >= 1, < 2)` from the constraints of the field at `path`, or nothing."""
    owner = _owner(model, path[:-1])
    field = owner.model_fields.get(str(path[-1])) if owner else None
    if field is None:
        return ""
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    bounds = [f"{signs[k]} {getattr(m, k)}" for m in field.metadata for k in signs if hasattr(m, k)]
    return f" (allowed: {', '.join(bounds)})" if bounds else ""


def _owner(model: type[BaseModel], path: tuple[int | str, ...]) -> type[BaseModel] | None:
    """Follow `path` through nested settings, also where they may be None."""
    for part in path:
        field = model.model_fields.get(str(part))
        kinds = (field.annotation, *get_args(field.annotation)) if field else ()
        inner = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if not inner:
            return None
        model = inner[0]
    return model
