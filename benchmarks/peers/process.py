"""A process with all that it starts: how long it took, and the most memory that they had together."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

SAMPLE_SECONDS = 2.0
"""Reading what processes share takes the kernel 10 ms each, in which they wait: seldom is often enough."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Took:
    """What a process took.

    Attributes:
        code: its exit code.
        seconds: wall clock, from its start to its end.
        memory_bytes: peak of the sum over its processes, each page divided by those that share it.
        resident_bytes: the same with each page counted by everyone who has it.
    """

    code: int
    seconds: float
    memory_bytes: int
    resident_bytes: int


def run(command: list[str], environment: Mapping[str, str], log: Path) -> Took:
    """Run a command in the folder of `log`, into which its output goes; what it leaves behind is ended."""
    peak = [0, 0]
    seen: set[psutil.Process] = set()
    with log.open("wb") as file:
        began = time.perf_counter()
        process = psutil.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, env=dict(environment), cwd=log.parent
        )
        try:
            while True:
                try:
                    code = process.wait(SAMPLE_SECONDS)
                    break
                except psutil.TimeoutExpired:
                    with suppress(psutil.NoSuchProcess):
                        seen.update([process, *process.children(recursive=True)])
                    peak = [max(pair) for pair in zip(peak, _memory(seen), strict=True)]
            seconds = time.perf_counter() - began
        finally:
            for each in seen:
                with suppress(psutil.NoSuchProcess):
                    each.kill()
    return Took(code=code, seconds=seconds, memory_bytes=peak[0], resident_bytes=peak[1])


def _memory(processes: set[psutil.Process]) -> tuple[int, int]:
    """Return both sums; where the system does not tell what is shared, memory is what no process shares."""
    once = resident = 0
    for process in processes:
        with suppress(psutil.Error):
            info = process.memory_full_info()
            once += getattr(info, "pss", info.uss)
            resident += info.rss
    return once, resident
