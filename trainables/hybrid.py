"""HybridTrainable: one hybrid run as a Ray Tune class trainable, for a `tune.Tuner` of one's own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from ray import tune

from hybrid_sweep.cluster.worker import TrialWorker
from hybrid_sweep.cluster.worker_context import Shared

CHECKPOINT_FILE = "run.pt"


class HybridTrainable(tune.Trainable):
    """One report a `step()`; data, workload and frozen controls stay in memory where actors are reused.

    Use it with `tune.with_parameters(HybridTrainable, shared=Shared(...))`, and with the searcher and the
    scheduler of `hybrid_sweep.cluster.tune` if you like. The config has one key, `point`: trial_id, seed
    and the fields of HybridConfig. Reports come under `report`, the last one with `finished`: state, reason
    and the columns of the result.
    """

    def setup(self, config: dict[str, Any], shared: Shared | None = None) -> None:
        """Keep what all trials share, and take on the first one.

        Raises:
            ValueError: it is missing.
        """
        if shared is None:
            raise ValueError("HybridTrainable is started with tune.with_parameters(..., shared=Shared(...))")
        self._runner = TrialWorker(
            replace(shared, sweep_id="")
        )  # by itself: Tune moves its state to other trials
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take on the next trial."""
        self._point: dict[str, Any] = new_config["point"]
        self._runner.start(self._point)
        return True

    def step(self) -> dict[str, Any]:
        """Train to the end of the next cycle that is reported.

        Raises:
            RuntimeError: the trial should be tried again later, which Tune's `max_failures` does.
        """
        while (said := self._runner.step()).get("report", said) is None and "finished" not in said:
            pass
        if lost := said.get("lost"):
            raise RuntimeError(lost)
        said.pop("checkpoint", None)  # Tune asks for its own
        return {**said, "done": "finished" in said}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write the run as it stands; an empty file where it would start from step 0."""
        Path(checkpoint_dir, CHECKPOINT_FILE).write_bytes(self._runner.checkpoint() or b"")

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Go on from what `save_checkpoint` wrote into the folder `checkpoint`, maybe for another trial.

        So population-based training exploits: weights, optimizer, schedule and step are the other trial's,
        the configuration is the one of `reset_config` (see `HybridTrainer.load_state_dict`).

        Raises:
            UserError: that trial had another seed, or it cannot go on from there.
        """
        if state := Path(checkpoint, CHECKPOINT_FILE).read_bytes():
            self._runner.go_on(self._point, state)
        else:
            self._runner.start(self._point)
