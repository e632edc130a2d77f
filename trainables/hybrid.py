"""HybridTrainable: the Ray Tune trainable around one hybrid run, with reused actors."""

from __future__ import annotations

import traceback
from typing import Any

from ray import tune

from hybrid_sweep.cluster.work import Shared
from hybrid_sweep.measure.trial import Trial


class HybridTrainable(tune.Trainable):
    """One report a `step()`; data, workload and frozen controls stay in memory between trials.

    An exception of the user's code ends the trial as `failed` with its reason, not the actor. The config
    has one key, `point`: trial_id, seed and the fields of HybridConfig. Reports come under `report`, the
    last one with `finished`: state, reason and the columns of the result.
    """

    def setup(self, config: dict[str, Any], shared: Shared | None = None) -> None:
        """Keep what all trials share, and start the first one."""
        if shared is None:
            raise ValueError("HybridTrainable is started with tune.with_parameters(..., shared=Shared(...))")
        self._shared = shared
        self._workload: Any = None
        self._frozen: dict[tuple[int, str, int], dict[str, float]] = {}
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Start the next trial in this actor."""
        self._point = new_config["point"]
        self._trial: Trial | None = None
        return True

    def step(self) -> dict[str, Any]:
        """Train one cycle."""
        try:
            if self._workload is None:
                self._workload = self._shared.order.build()
            if self._trial is None:
                self._trial = self._shared.trial(self._point, self._workload, self._frozen)
            report = self._trial.report()
            if not self._trial.done:
                return {"report": report, "done": False}
            finished = {
                "state": self._trial.state,
                "reason": self._trial.reason,
                "result": self._trial.result(),
            }
            self._shared.keep_model(self._point, self._trial)
            self._trial = None
            return {"report": report, "finished": finished, "done": True}
        except Exception as error:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            failed = {"state": "failed", "reason": reason, "result": {}, "traceback": traceback.format_exc()}
            return {"finished": failed, "done": True}
