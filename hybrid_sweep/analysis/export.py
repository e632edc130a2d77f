"""Tables as files: CSV, JSON or Parquet, to a path or to standard output."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pandas as pd

from hybrid_sweep.errors import UserError
from hybrid_sweep.store.atomic import replacing

FORMATS = ("csv", "json", "parquet")
FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")
"""With what a formula begins in a spreadsheet, also in the wide characters of some languages."""


def encode(table: pd.DataFrame, format: str) -> bytes:
    """Return `table` in one of `FORMATS`; JSON is a list of records, with null for what is not a number.

    CSV has a line a row, whatever its cells hold, so that `head`, `wc` and `sort` work.

    Raises:
        UserError: an unknown format.
    """
    match format:
        case "csv":
            return _in_lines(table).to_csv(index=False, lineterminator="\n").encode()
        case "json":
            return (table.to_json(orient="records", indent=1, double_precision=12) + "\n").encode()
        case "parquet":
            return table.to_parquet(index=False)
    raise UserError(f"unknown format {format!r}; known: {', '.join(FORMATS)}")


def _in_lines(table: pd.DataFrame) -> pd.DataFrame:
    """Return `table` with a space for each line break in a text, and none that a spreadsheet would run.

    To one that begins with = + - or @ it would be a formula: an apostrophe before it makes it a text.
    """
    words = table.select_dtypes(["str", "object"]).columns
    return table.assign(**{name: table[name].map(_in_line, na_action="ignore") for name in words})


def _in_line(cell: Any) -> Any:
    if not isinstance(cell, str) or not cell:
        return cell
    line = " ".join(map(str.strip, cell.splitlines())).strip()
    return f"'{line}" if line.startswith(FORMULA) and not _is_number(line) else line


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def write_table(table: pd.DataFrame, format: str, to: Path | None) -> None:
    """Write `table` to the file `to`, or to standard output where `to` is None.

    Raises:
        UserError: an unknown format, a place that cannot be written, or Parquet for a terminal.
    """
    content = encode(table, format)
    if to is not None:
        try:
            with replacing(to) as temporary:
                temporary.write_bytes(content)
        except OSError as error:
            raise UserError(
                f"cannot write {to}: {error.strerror}; name a file in a folder that exists"
            ) from None
    elif format == "parquet" and sys.stdout.isatty():
        raise UserError("parquet is binary and not for a terminal: name a file, or choose csv or json")
    elif format == "parquet":
        sys.stdout.buffer.write(content)
    else:
        sys.stdout.write(content.decode())
