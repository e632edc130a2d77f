"""Standard output and error that may go away: a reader leaves, a terminal is closed, a disk is full."""

from __future__ import annotations

import errno
import os
import sys
from io import BufferedWriter, FileIO, TextIOWrapper
from typing import Any

GONE = (errno.EPIPE, errno.EIO)
"""Nothing reads any more: a pipe whose other end is closed, and a terminal that is."""


class Output:
    """The two streams of the program, on which no write fails.

    A command that only reads ends quietly when the reader of its output leaves. One that trains goes on in
    silence: what it prints is of less worth than what it does.

    Attributes:
        trains: whether the command is one that trains.
    """

    def __init__(self) -> None:
        self.trains = False
        for descriptor in range(3):  # one that is closed would be given to the next file that is opened
            try:
                os.fstat(descriptor)
            except OSError:
                os.open(os.devnull, os.O_RDWR)
        self._files = [_File(1, self), _File(2, self)]
        sys.stdout = _text(sys.stdout, sys.__stdout__, self._files[0])
        sys.stderr = _text(sys.stderr, sys.__stderr__, self._files[1])

    def code(self, code: int) -> int:
        """Write what is left, and return the exit code: 2 where what a command should print was lost."""
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        error = self._files[0].error
        if error is None or error.errno in GONE:
            return code
        print(f"error: cannot write to standard output ({error.strerror}): make room there", file=sys.stderr)
        return code if self.trains else code or 2


class _File(FileIO):
    """One of the two; after the first write that fails nothing is written any more."""

    def __init__(self, descriptor: int, output: Output) -> None:
        super().__init__(descriptor, "wb", closefd=False)
        self.error: OSError | None = None
        self._output = output

    def write(self, data: Any) -> int:
        if self.error is None:
            try:
                return super().write(data)
            except OSError as error:
                self.error = error
                if error.errno in GONE and not self._output.trains:
                    raise SystemExit(0) from None
        return memoryview(data).nbytes


def _text(stream: Any, original: Any, file: FileIO) -> Any:
    """Return what takes the place of a stream; one that was put there, as in a test, stays."""
    if stream is None or stream is original:
        line_by_line = stream is None or stream.line_buffering
        encoding = getattr(stream, "encoding", None) or "utf-8"
        return TextIOWrapper(BufferedWriter(file), encoding, "replace", line_buffering=line_by_line)
    if isinstance(stream, TextIOWrapper):
        stream.reconfigure(errors="replace")  # a terminal without × shows ? for it
    return stream
