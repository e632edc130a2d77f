"""Trained weights that stay in a results folder."""

from __future__ import annotations

from pathlib import Path

from hybrid_sweep.cluster.worker_context import model_file
from hybrid_sweep.results import ResultsFolder
from hybrid_sweep.store.runs import INTERRUPTED


def keep_front(folder: ResultsFolder, models: Path) -> None:
    """Delete the weights of every run that is not on the front, once no run can get there any more.

    Files of other names are left alone: whatever they are, they are not known to be off the front.
    """
    trials = folder.trials()
    open_still = trials["state"].isin(["running", "failed"]) | (trials["reason"] == INTERRUPTED)
    if open_still.any():
        return
    for half in models.glob(".*.pt.*.tmp"):  # that a lost worker has left
        half.unlink(missing_ok=True)
    on_front = set(folder.table("front")["trial_id"])
    for trial_id, seed in zip(trials["trial_id"], trials["seed"], strict=True):
        file = models / model_file(trial_id, seed)
        if trial_id not in on_front:
            file.unlink(missing_ok=True)
