"""The journal of a sweep: append-only JSON lines, each on disk before the next thing happens."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from pydantic import ValidationError
from pydantic_core import from_json

from hybrid_sweep.errors import UserError, brief, encodable, shown, without_commands
from hybrid_sweep.paths import validate_identifier, validate_path
from hybrid_sweep.store.event_model import ANY, MODELS

_ESCAPED = re.compile(rb"\\[bfru]")
"""What of ASCII stands in a line where a text in it holds more than printable characters and line feeds."""
_READ_BYTES = 1 << 20  # at once: large journals are mostly lines that are skipped
_HEAD = b'{"event": "'  # as `append` begins each line
_DEEPEST = 100  # levels of lists and mappings; the reader refuses 200
_LARGEST = 10**300  # whole numbers above become text: Python's JSON refuses 4,301 digits


def _utc_now() -> datetime:
    return datetime.now(UTC)


_READERS = {name.encode(): (name, model.validator.validate_json) for name, model in MODELS.items()}
"""By the name of an event, as a line begins with it."""


class Journal:
    """What happened in a sweep, in order; the tables of a results folder are views of it.

    One process writes it (the driver of the sweep); any number may read it meanwhile. A line counts once
    it is whole: a line torn by a crash is ignored by readers and cut off before the next append.
    """

    def __init__(self, path: Path | str, *, now: Callable[[], datetime] = _utc_now) -> None:
        self.path = Path(path)
        self._now = now

    def append(self, event: Mapping[str, Any]) -> None:
        """Write one event and force it to disk, stamped with `at`, the UTC time in ISO 8601.

        Not-a-number becomes null and an infinity the text "inf" or "-inf", for JSON has no number for it.

        Raises:
            KeyError: the event does not say which `event` it is.
            UserError: no reader would take it.
        """
        line = {"event": event["event"], "at": self._now().isoformat(timespec="milliseconds"), **event}
        text = json.dumps(plain(line), allow_nan=False)
        try:
            _event(text.encode())
        except ValueError as error:
            raise UserError(
                f"{self.path} cannot hold this event ({brief(error)}): what is written so far is whole"
            ) from None
        with validate_path(self.path, alone=True).open("ab+") as file:
            _cut_torn_line(file)
            file.write(text.encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    @staticmethod
    def read(path: Path | str, *, skip: Collection[str] = ()) -> list[dict[str, Any]]:
        """Return all that `events` yields.

        Raises:
            UserError: a line other than a torn last one is not an event.
        """
        return list(Journal.events(path, skip=skip))

    @staticmethod
    def events(path: Path | str, *, skip: Collection[str] = ()) -> Iterator[dict[str, Any]]:
        """Yield the events in order, without those named in `skip`; a journal not started yet has none.

        Skipped events are not even parsed, so that a table of trials does not pay for every report.

        Raises:
            UserError: a line other than a torn last one is not an event, or the file cannot be read.
        """
        heads = tuple(b'{"event": ' + json.dumps(name).encode() for name in skip)
        validate_path(Path(path))
        try:
            with Path(path).open("rb", buffering=_READ_BYTES) as file:
                for number, line in enumerate(file, start=1):
                    if line.startswith(heads):
                        continue
                    try:
                        event = _event(line)
                    except ValueError as error:
                        if not line.endswith(b"\n"):  # torn
                            continue
                        raise UserError(
                            f"{path} is corrupt: line {number} is not an event ({brief(error)}); "
                            f"restore the file from a copy, or delete that line, and try again"
                        ) from None
                    if event["event"] not in skip:
                        yield event
        except FileNotFoundError:
            return
        except OSError as error:
            raise UserError(
                f"{path} cannot be read ({error.strerror}): fix that, or copy the folder to where you may"
            ) from None


def plain(value: Any, depth: int = 0) -> Any:
    """Return `value` as JSON can hold it: not-a-number as None, infinities as text, 0-d arrays as numbers.

    Lone surrogates of a text, as a file name that is no UTF-8 has them, are escaped, and commands to a
    terminal left out. What lies deeper than
    `_DEEPEST` levels becomes "…"; a whole number that no reader takes is told by its length in bits.

    Args:
        value: what to write.
        depth: levels of lists and mappings around it.
    """
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        return None if math.isnan(value) else str(float(value))
    if isinstance(value, str):
        return encodable(without_commands(value))
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if abs(value) <= _LARGEST else f"a whole number of {value.bit_length()} bits"
    if depth >= _DEEPEST and isinstance(value, (list, tuple, Mapping)):
        return "…"
    if isinstance(value, (list, tuple)):
        return [plain(inner, depth + 1) for inner in value]
    if isinstance(value, Mapping):
        return {
            encodable(without_commands(str(key))): plain(inner, depth + 1) for key, inner in value.items()
        }
    if isinstance(value, Path):
        return encodable(without_commands(str(value)))
    return plain(value.item(), depth) if hasattr(value, "item") else value


def _event(line: bytes) -> dict[str, Any]:
    """Return the event of a line, as the model of its kind has it.

    Raises:
        ValueError: it is none, or does not fit.
    """
    if line.startswith(_HEAD) and _is_plain(line):
        name, read = _READERS.get(line[len(_HEAD) : line.find(b'"', len(_HEAD))], ("", None))
        if read:  # read and validated at once; what is wrong with another line is found below
            try:
                event: dict[str, Any] = read(line)
                if event["event"] == name:
                    return event
            except ValidationError:
                pass
    parsed = _parse(line)
    if parsed.get("trial_id", "") != "":  # controls of `confirm` have an empty one
        validate_identifier(parsed["trial_id"], "the event")
    try:
        return MODELS.get(parsed["event"], ANY).validate_python(parsed)
    except ValidationError as error:
        first = error.errors()[0]
        missing = first["type"] == "missing"
        told = "" if missing else f"={shown(first['input'])}"
        raise ValueError(f"{'.'.join(map(str, first['loc']))}{told}: {first['msg']}") from None


def _is_plain(line: bytes) -> bool:
    """Return whether no text of a line can hold a command to a terminal."""
    return line.isascii() and b"\x7f" not in line and not (b"\\" in line and _ESCAPED.search(line))


def _parse(line: bytes) -> dict[str, Any]:
    event = from_json(line)
    if not _is_plain(line):
        event = without_commands(event)
    if not (isinstance(event, dict) and isinstance(event.get("event"), str)):
        raise ValueError("no mapping that says which event it is")
    return event


def _cut_torn_line(file: IO[bytes]) -> None:
    """Leave `file` ending in a whole line: end a complete last line, cut off a torn one."""
    size = file.seek(0, os.SEEK_END)
    if size == 0:
        return
    file.seek(size - 1)
    if file.read(1) == b"\n":
        return
    file.seek(0)
    content = file.read()
    whole = content.rfind(b"\n") + 1
    try:
        _event(content[whole:])
        file.write(b"\n")
    except ValueError:
        file.truncate(whole)
