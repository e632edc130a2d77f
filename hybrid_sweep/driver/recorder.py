"""Recorder: the Tune callback that writes the journal and tells whoever watches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray.tune import Callback

from hybrid_sweep.analysis.folder import ResultsFolder
from hybrid_sweep.driver.events import SweepEvent, TrialFinished, TrialReported, TrialStarted

Key = tuple[str, int]


class Recorder(Callback):
    """Appends what happens to the journal, in the order in which the driver learns of it.

    Attributes:
        counts: runs that ended, by state.
    """

    def __init__(self, folder: ResultsFolder, tell: Callable[[SweepEvent], None]) -> None:
        self.counts: Counter[str] = Counter()
        self._folder = folder
        self._tell = tell
        self._finished: set[Key] = set()
        self._started: dict[Key, dict[str, Any]] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Let Tune pickle its callbacks for its own way to resume, which is not used: the journal is ours."""
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Record that a run began."""
        point = trial.config["point"]
        key = (point["trial_id"], point["seed"])
        if key in self._started:
            return
        self._started[key] = point["config"]
        self._append("started", key, config=point["config"])
        self._tell(TrialStarted(*key))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Record a report, and the end of a run that came with it."""
        key = self._key(trial)
        if report := result.get("report"):
            self._append("reported", key, report=report)
            self._tell(TrialReported(*key, report))
        if finished := result.get("finished"):
            self.finish(key, **finished)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Record a run whose worker was lost."""
        reason, text = _last_words(trial.error_file)
        self.finish(self._key(trial), "failed", f"lost: {reason}", {}, traceback=text)

    def finish(self, key: Key, state: str, reason: str, result: dict[str, Any], traceback: str = "") -> None:
        """Record the end of a run, once."""
        if key in self._finished:
            return
        self._finished.add(key)
        self.counts[state] += 1
        extra = {"traceback": traceback} if traceback else {}
        self._append("finished", key, state=state, reason=reason, result=result, **extra)
        self._tell(TrialFinished(*key, state, reason, result))

    def close(self, interrupted: bool, planned: list[Key]) -> None:
        """End the runs that have no end yet: after Ctrl-C those that began are pruned, else all are lost."""
        for key in planned:
            if interrupted and key in self._started:
                self.finish(key, "pruned", "interrupted", {})
            elif not interrupted:
                self.finish(key, "failed", "lost: Ray ended the sweep without this run", {})

    def _append(self, event: str, key: Key, **fields: Any) -> None:
        self._folder.journal.append({"event": event, "trial_id": key[0], "seed": key[1], **fields})

    @staticmethod
    def _key(trial: Any) -> Key:
        return trial.config["point"]["trial_id"], trial.config["point"]["seed"]


def _last_words(error_file: str | None) -> tuple[str, str]:
    """Return what Ray says of a lost worker in a line, and all of it: the file ends with the sweep."""
    try:
        text = Path(error_file or "").read_text(encoding="utf-8")
    except OSError:
        text = ""
    lines = [line for line in text.splitlines()[1:] if line.strip()]  # the first one is Tune's count
    if not lines:
        return "its worker died", text
    return lines[-1 if lines[0].startswith("ray::") else 0], text  # of a traceback the last line
