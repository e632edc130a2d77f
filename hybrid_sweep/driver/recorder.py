"""Recorder: what happens in a sweep, to the journal first and then to whoever watches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hybrid_sweep.credentials import without_secrets
from hybrid_sweep.driver.backend import Finished, Key, Lost, Reported, Run, Stopped
from hybrid_sweep.driver.events import (
    Note,
    SlotsChanged,
    SweepEvent,
    TrialFinished,
    TrialLost,
    TrialReported,
    TrialStarted,
    Waiting,
)
from hybrid_sweep.errors import UserError, brief, safe
from hybrid_sweep.store.folder import SweepFolder
from hybrid_sweep.store.runs import INTERRUPTED, identity

LONGEST_TRACEBACK = 20_000
"""Characters, from its end, where the cause is."""


class Recorder:
    """Appends events to the journal of a results folder, in the order in which the driver learns of them.

    Attributes:
        counts: runs that ended, by state.
        tell: told of everything after it is on disk.
        arms: of the controls, by trial id.

    Raises:
        UserError: by any method, where the journal cannot be written; what it holds is whole.
    """

    def __init__(self, folder: SweepFolder, tell: Callable[[SweepEvent], None]) -> None:
        self.counts: Counter[str] = Counter()
        self.tell = tell
        self.arms: dict[str, str] = {}
        self._folder = folder

    def asked(self, event: dict[str, Any]) -> None:
        """Record that the study chose a point."""
        self._append(**event)

    def started(self, run: Run) -> None:
        """Record that a run began, or began again."""
        arm = {"arm": run.arm} if run.arm else {}
        self._append("started", **identity(run.key), config=run.config, attempt=run.attempt, **arm)
        self.tell(TrialStarted(*run.key))

    def reported(self, happening: Reported) -> None:
        """Record a report and then its checkpoint: whatever comes between costs work, but no report."""
        report = happening.report
        if report is not None:
            self._append("reported", **identity(happening.key), report=report)
        self.keep_checkpoint(happening.key, happening.checkpoint)
        if report is not None:
            self.tell(TrialReported(*happening.key, report))

    def lost(self, happening: Lost, attempt: int, again_in_seconds: float) -> None:
        """Record that a run's worker died and that it will be started again."""
        why = brief(happening.why)
        fields = {"attempt": attempt, "why": why, "preempted": happening.preempted}
        self._append("lost", **identity(happening.key), **fields)
        self.tell(TrialLost(*happening.key, why, again_in_seconds))

    def interrupted(self, happening: Stopped) -> None:
        """Record that a run was stopped with the sweep; it goes on when the sweep is resumed."""
        self.keep_checkpoint(happening.key, happening.checkpoint)
        self._append("interrupted", **identity(happening.key), result=happening.result)
        self.counts["pruned"] += 1
        self._tell_end(happening.key, "pruned", INTERRUPTED, happening.result)

    def retried(self, key: Key) -> None:
        """Record that a failed run is opened again."""
        self._append("retried", **identity(key))

    def finished(self, happening: Finished) -> None:
        """Record the end of a run."""
        key, reason = happening.key, brief(happening.reason)
        fields = {"state": happening.state, "reason": reason, "result": happening.result}
        traceback = without_secrets(safe(happening.traceback or ""))[-LONGEST_TRACEBACK:]
        extra = {"traceback": traceback, "from_cache": happening.from_cache}
        told = {name: value for name, value in extra.items() if value}
        self._append("finished", **identity(key), **fields, **told)
        with writing(self._folder.path):
            self._folder.checkpoint_path(*key).unlink(missing_ok=True)
        self.counts[happening.state] += 1
        self._tell_end(key, happening.state, reason, happening.result, happening.from_cache)

    def slots_changed(self, slots: int) -> None:
        """Tell that nodes came or went."""
        self.tell(SlotsChanged(slots))

    def waiting(self) -> None:
        """Tell that nothing was heard for a second."""
        self.tell(Waiting())

    def note(self, text: str) -> None:
        """Tell one sentence that no table needs."""
        self.tell(Note(text))

    def checkpoint(self, key: Key) -> bytes | None:
        """Return the newest checkpoint of a run."""
        try:
            return self._folder.checkpoint_path(*key).read_bytes()
        except FileNotFoundError:
            return None

    def keep_checkpoint(self, key: Key, checkpoint: bytes | None) -> None:
        """Replace a run's checkpoint, where there is a new one."""
        if checkpoint is not None:
            with writing(self._folder.path):
                self._folder.write_checkpoint(*key, checkpoint)

    def _tell_end(
        self, key: Key, state: str, reason: str, result: Mapping[str, Any], from_cache: bool = False
    ) -> None:
        self.tell(TrialFinished(*key, state, reason, result, self.arms.get(key[0], ""), from_cache))

    def _append(self, event: str, **fields: Any) -> None:
        with writing(self._folder.path):
            self._folder.journal.append({"event": event, **fields})


@contextmanager
def writing(folder: Path, again: str = "resume") -> Iterator[None]:
    """Turn what the disk refuses into a sentence that names the command to give `again`.

    Raises:
        UserError: with the reason, and how to go on.
    """
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write to {folder} ({error.strerror}): nothing written so far is lost; "
            f"make room, then go on with: hybrid-sweep {again} {folder}"
        ) from None
