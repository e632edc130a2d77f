"""Recorder: what happens in a sweep, to the journal first and then to those who watch."""

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
        on_event: told of everything after it is on disk.
        arms: of the controls, by trial id.

    Raises:
        UserError: by any method, where the journal cannot be written; what it holds is whole.
    """

    def __init__(self, folder: SweepFolder, on_event: Callable[[SweepEvent], None]) -> None:
        self.counts: Counter[str] = Counter()
        self.on_event = on_event
        self.arms: dict[str, str] = {}
        self._folder = folder

    def asked(self, event: dict[str, Any]) -> None:
        """Record that the study chose a point."""
        self._append(**event)

    def started(self, run: Run) -> None:
        """Record that a run began, or began again."""
        arm = {"arm": run.arm} if run.arm else {}
        self._append("started", **identity(run.key), config=run.config, attempt=run.attempt, **arm)
        self.on_event(TrialStarted(*run.key))

    def reported(self, update: Reported) -> None:
        """Record a report and then its checkpoint: whatever comes between costs work, but no report."""
        report = update.report
        if report is not None:
            self._append("reported", **identity(update.key), report=report)
        self.keep_checkpoint(update.key, update.checkpoint)
        if report is not None:
            self.on_event(TrialReported(*update.key, report))

    def lost(self, update: Lost, attempt: int, again_in_seconds: float) -> None:
        """Record that a run's worker died and that it will be started again."""
        why = brief(update.why)
        fields = {"attempt": attempt, "why": why, "preempted": update.preempted}
        self._append("lost", **identity(update.key), **fields)
        self.on_event(TrialLost(*update.key, why, again_in_seconds))

    def interrupted(self, update: Stopped) -> None:
        """Record that a run was stopped with the sweep; it goes on when the sweep is resumed."""
        self.keep_checkpoint(update.key, update.checkpoint)
        self._append("interrupted", **identity(update.key), result=update.result)
        self.counts["pruned"] += 1
        self._tell_end(update.key, "pruned", INTERRUPTED, update.result)

    def retried(self, key: Key) -> None:
        """Record that a failed run is opened again."""
        self._append("retried", **identity(key))

    def finished(self, update: Finished) -> None:
        """Record the end of a run."""
        key, reason = update.key, brief(update.reason)
        fields = {"state": update.state, "reason": reason, "result": update.result}
        traceback = without_secrets(safe(update.traceback or ""))[-LONGEST_TRACEBACK:]
        extra = {"traceback": traceback, "from_cache": update.from_cache}
        told = {name: value for name, value in extra.items() if value}
        self._append("finished", **identity(key), **fields, **told)
        with writing(self._folder.path):
            self._folder.checkpoint_path(*key).unlink(missing_ok=True)
        self.counts[update.state] += 1
        self._tell_end(key, update.state, reason, update.result, update.from_cache)

    def slots_changed(self, slots: int) -> None:
        """Tell that nodes came or went."""
        self.on_event(SlotsChanged(slots))

    def waiting(self) -> None:
        """Tell that nothing was heard for a second."""
        self.on_event(Waiting())

    def note(self, text: str) -> None:
        """Tell one sentence that no table needs."""
        self.on_event(Note(text))

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
        self.on_event(TrialFinished(*key, state, reason, result, self.arms.get(key[0], ""), from_cache))

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
