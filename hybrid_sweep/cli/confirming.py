"""ConfirmProgress: how far a confirmation is."""

from __future__ import annotations

import math
import threading
import time
from typing import TYPE_CHECKING, Self

from rich import progress as bars
from rich.console import Console

if TYPE_CHECKING:
    from hybrid_sweep.confirm.plan import Progress

LINE_EVERY_SECONDS, SIGN_EVERY_SECONDS = 3.0, 15.0


class ConfirmProgress:
    """Shows how far a confirmation is: a bar in a terminal, plain lines anywhere else."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = bars.Progress(
            bars.TextColumn("confirming"),
            bars.BarColumn(),
            bars.MofNCompleteColumn(),
            bars.TimeRemainingColumn(),
            bars.TextColumn("{task.description}", style="dim"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task: bars.TaskID | None = None
        self._line = -math.inf
        self._says, self._over = "building the workload", threading.Event()

    def __enter__(self) -> Self:
        self._bar.start()
        if not self._console.is_terminal:
            threading.Thread(target=self._live_on, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._bar.stop()

    def _live_on(self) -> None:
        """Give a sign of life while a run lasts: this process trains it, and says nothing meanwhile."""
        began = time.monotonic()
        while not self._over.wait(SIGN_EVERY_SECONDS):
            self._console.print(f"{self._says} ({time.monotonic() - began:.0f} s so far)", soft_wrap=True)

    def __call__(self, progress: Progress) -> None:
        """Show what comes next."""
        if self._task is None:
            self._task = self._bar.add_task("", total=progress.total)
        self._says = f"{progress.done}/{progress.total} | {progress.next}"
        self._bar.update(self._task, completed=progress.done, description=progress.next)
        if not self._console.is_terminal and time.monotonic() - self._line >= LINE_EVERY_SECONDS:
            self._line = time.monotonic()
            self._console.print(self._says, soft_wrap=True)
