"""The journal of a sweep: append-only JSON lines, each on disk before the next thing happens."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from pydantic_core import from_json

from hybrid_sweep.errors import UserError, encodable, without_commands
from hybrid_sweep.paths import refuse_identifier, refuse_strange

_READ_BYTES = 1 << 20  # at once: large journals are mostly lines that are skipped
_DEEPEST = 100  # levels of lists and mappings; the reader refuses 200
_LARGEST = 10**300  # whole numbers above become text: Python's JSON refuses 4,301 digits


def _utc_now() -> datetime:
    return datetime.now(UTC)


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
        """
        line = {"event": event["event"], "at": self._now().isoformat(timespec="milliseconds"), **event}
        text = json.dumps(plain(line), allow_nan=False)
        with refuse_strange(self.path).open("ab+") as file:
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
        """Yield the events in order, without those named in `skip`; a journal not begun yet has none.

        Skipped events are not even parsed, so that a table of trials does not pay for every report.

        Raises:
            UserError: a line other than a torn last one is not an event, or the file cannot be read.
        """
        heads = tuple(b'{"event": ' + json.dumps(name).encode() for name in skip)
        refuse_strange(Path(path))
        try:
            with Path(path).open("rb", buffering=_READ_BYTES) as file:
                for number, line in enumerate(file, start=1):
                    if line.startswith(heads):
                        continue
                    event = _parse(line)
                    if event is not None:
                        if event.get("trial_id", "") != "":  # controls of `confirm` have an empty one
                            refuse_identifier(event["trial_id"], f"{path}, line {number}")
                        if event["event"] not in skip:
                            yield event
                    elif line.endswith(b"\n"):
                        raise UserError(
                            f"{path} is corrupt: line {number} is not an event; "
                            f"restore the file from a copy, or delete that line, and try again"
                        )
        except FileNotFoundError:
            return
        except OSError as error:
            raise UserError(
                f"{path} cannot be read ({error.strerror}): mend that, or copy the folder to where you may"
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


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        event = from_json(line)
    except ValueError:  # also bytes that are no UTF-8
        return None
    if b"\\u" in line or b"\x7f" in line or not line.isascii():
        event = without_commands(event)
    return event if isinstance(event, dict) and isinstance(event.get("event"), str) else None


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
    if _parse(content[whole:]) is None:
        file.truncate(whole)
    else:
        file.write(b"\n")
