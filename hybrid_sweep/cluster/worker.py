"""Runner: what a worker does, one trial after another, with everything that they share kept in memory."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from hybrid_sweep.cluster.gpu_memory import shortage
from hybrid_sweep.cluster.ray_errors import told, with_remedy
from hybrid_sweep.cluster.worker_context import Shared
from hybrid_sweep.errors import UserError, named, one_line
from hybrid_sweep.measure.checkpoint import from_bytes, to_bytes
from hybrid_sweep.measure.control_run import ControlRun
from hybrid_sweep.measure.hybrid_run import HybridRun, Twins
from hybrid_sweep.measure.run_cache import KeptTwins, RunCache
from hybrid_sweep.measure.shared_prefix import SharedPrefixRun
from hybrid_sweep.trainer.train_step import StepGenerator, run_to_completion

logger = logging.getLogger(__name__)
T = TypeVar("T")


class TrialWorker:
    """Runs trials in steps of a cycle, or of as many cycles as `Shared.report_seconds` last.

    A Ray actor is made of it, and the Ray Tune trainable wraps it.

    An exception of the user's code ends the trial as `failed` with its reason, not the worker.

    Args:
        shared: what all trials of the sweep share; where that is to be prepared first, `begin` gives it.
        beside: another one of this process, whose workload and twins it shares.
    """

    def __init__(self, shared: Shared | None = None, beside: TrialWorker | None = None) -> None:
        self._beside = beside
        if shared is not None:
            self.begin(shared)
        self._workload: Any = None
        self._runs: RunCache | None = None
        self._twins: Twins = {}
        self._point: dict[str, Any] = {}
        self._from: bytes | None = None
        self._of_another = False
        self._trial: HybridRun | SharedPrefixRun | ControlRun | None = None
        self._checkpoint_at = 0.0

    def prepare(self, function: Callable[..., T], *arguments: Any) -> T:
        """Return what `function` does, a preparation of the sweep in `cluster.work`.

        Raises:
            UserError: as `function` does.
            WorkFailed: where it raises anything else.
        """
        with told():
            result = function(*arguments)
        torch.cuda.empty_cache()  # what trials of other processes find free
        return result

    def begin(self, shared: Shared) -> None:
        """Be ready for trials from now on."""
        self._shared = shared

    def ready(self) -> None:
        """Build the workload and warm up, so that no trial pays for it.

        Raises:
            UserError: where it cannot be built on this node, or is not the one with which the sweep began,
                or its GPU could never hold a trial.
            WorkFailed: where its code fails.
        """
        with told():
            self._build()

    def _build(self) -> None:
        shortage(self._shared.gpu_memory_bytes)
        if self._workload is None and self._beside is not None:
            self._beside._build()
            other = self._beside
            self._workload, self._runs, self._twins = other._workload, other._runs, other._twins
        elif self._workload is None:
            self._shared.order.validate_unchanged(self._shared.began_with)
            workload = self._shared.order.build()
            self._shared.order.validate_same_workload(self._shared.began_with)
            self._runs = self._shared.runs(workload)
            self._twins = {} if self._runs is None else KeptTwins(self._runs)
            self._workload = workload

    def start(self, point: dict[str, Any], checkpoint: bytes | None = None) -> None:
        """Take on a trial, in `point`'s trial_id, seed, config and arm, from its checkpoint if there is one.

        A control has no checkpoint: it starts from step 0; so does a run whose state cannot be saved whole.
        """
        self._point, self._from, self._trial = point, checkpoint if self._shared.saves else None, None
        self._of_another = False

    def go_on(self, point: dict[str, Any], checkpoint: bytes) -> None:
        """Take on a trial where another one, or itself, had come to, under the configuration of `point`.

        Raises:
            UserError: it cannot go on from there.
        """
        self.start(point, checkpoint)
        if not self._shared.saves:
            raise UserError(
                f"{point['trial_id']} cannot go on from a checkpoint, which does not hold all that training "
                "depends on here: begin it without one"
            )
        self._of_another = True
        if not isinstance(self._started(), HybridRun):
            raise UserError(
                f"{point['trial_id']} is a control, which has no checkpoint: begin it without one"
            )

    def step(self) -> dict[str, Any]:
        """Train; return the newest `report`, those of `earlier` cycles, and a `checkpoint` when one is due.

        `report` is None where none was due. The last step has `finished`: state, reason and the columns of
        the result. `lost` says why the trial should be tried again later; with `counted` False that is no
        fault of its own.
        """
        return run_to_completion(self.iter_step())

    def iter_step(self) -> StepGenerator[dict[str, Any]]:
        """As `step`, but leave the real steps to the caller, so that many can be taken at once."""
        earlier: list[dict[str, Any]] = []
        until = time.monotonic() + self._shared.report_seconds
        while True:
            said = yield from self._cycle()
            if "checkpoint" not in said or said["checkpoint"] or time.monotonic() >= until:
                return {**said, "earlier": earlier} if earlier else said
            if said["report"]:
                earlier.append(said["report"])

    def _cycle(self) -> StepGenerator[dict[str, Any]]:
        try:
            if self._trial is None and (why := shortage(self._shared.gpu_memory_bytes)):
                return {"lost": why, "counted": False}
            trial = self._started()
            if trial.done:
                report = None
            elif isinstance(trial, ControlRun):
                report = trial.report()
            else:
                report = yield from trial.iter_report()
            if trial.done:
                # first, for it may add to the reason
                result = (yield from trial.iter_result()) if isinstance(trial, HybridRun) else trial.result()
                finished = {
                    "state": trial.state,
                    "reason": trial.reason,
                    "result": result,
                    "from_cache": isinstance(trial, ControlRun) and trial.from_cache,
                }
                self._shared.keep_model(self._point, trial)
                self._trial = None
                return {"report": report, "finished": finished}
            return {"report": report, "checkpoint": self._checkpoint_if_due(trial)}
        except torch.cuda.OutOfMemoryError as error:
            lost = f"out of GPU memory: {one_line(error)}"
        except GeneratorExit:
            raise
        except BaseException as error:  # a SystemExit of the user's code must not end the worker
            self._trial = None
            reason = with_remedy(named(error))
            failed = {"state": "failed", "reason": reason, "result": {}, "traceback": traceback.format_exc()}
            return {"finished": failed}
        self._trial = None
        torch.cuda.empty_cache()  # down here the error has let go of what its frames held
        return {"lost": lost}

    def stop_now(self, keep: bool) -> dict[str, Any]:
        """End the trial here: return its partial `result`, and with `keep` a `checkpoint` to go on from."""
        trial, self._trial = self._trial, None
        if trial is None:
            return {"result": {}, "checkpoint": self._from if keep else None}
        return {"result": trial.result(), "checkpoint": self._bytes_of(trial) if keep else None}

    def checkpoint(self) -> bytes | None:
        """Return what the run goes on from, in another worker too; None where it starts from step 0."""
        return self._bytes_of(self._trial) if self._trial else self._from

    def _started(self) -> HybridRun | SharedPrefixRun | ControlRun:
        if self._trial is None:
            self._build()
            self._trial = self._new(alone=self._from is not None)
            if self._from is not None and isinstance(self._trial, HybridRun):
                try:
                    self._trial.load_state_dict(from_bytes(self._from), under_new_config=self._of_another)
                except UserError as error:  # damaged, or of other code: only its work is lost
                    if self._of_another:
                        self._trial = None
                        raise
                    logger.warning("%s starts from step 0: %s", self._point["trial_id"], error)
                    self._trial = self._new()
            self._checkpoint_at = time.monotonic()
        return self._trial

    def _new(self, *, alone: bool = False) -> HybridRun | SharedPrefixRun | ControlRun:
        return self._shared.trial(self._point, self._workload, self._twins, self._runs, alone=alone)

    def _checkpoint_if_due(self, trial: HybridRun | SharedPrefixRun | ControlRun) -> bytes | None:
        every = self._shared.checkpoint_seconds
        if every is None or time.monotonic() - self._checkpoint_at < every:
            return None
        return self._bytes_of(trial)

    def _bytes_of(self, trial: HybridRun | SharedPrefixRun | ControlRun) -> bytes | None:
        """Return the state of a trial; None where it holds what cannot be saved, which the log says."""
        self._checkpoint_at = time.monotonic()
        if isinstance(trial, ControlRun) or (isinstance(trial, SharedPrefixRun) and trial.following):
            return None  # it is as fast from step 0
        if not self._shared.saves:
            return None  # another run would go on from it
        try:
            return to_bytes(trial.state_dict())
        except UserError as error:
            logger.warning("%s", error)
            return None
