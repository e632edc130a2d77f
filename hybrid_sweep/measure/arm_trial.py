"""ArmTrial: one control as a trial of a sweep, in the same plane of speedup and quality as the hybrid."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hybrid_sweep.arm import Arm
from hybrid_sweep.measure.arms import ArmRun
from hybrid_sweep.measure.costs import UnitCosts
from hybrid_sweep.measure.recipe import NotApplicable
from hybrid_sweep.measure.reference import Reference
from hybrid_sweep.measure.score import quality, speedup, speedup_counted
from hybrid_sweep.trainer.costs import Work
from hybrid_sweep.workload import Workload, quality_of


class ArmTrial:
    """Runs one control with one seed, an evaluation a `report`; then `result` has its columns.

    Its real steps stand for the N logical steps of the reference: progress is told in those, and held-out
    results are compared with the reference's at the same logical step.

    Args:
        workload: what to train.
        arm: which control.
        steps: real steps.
        reference: plain training with the same seed; "truncated" is read from it and trains nothing.
        costs: frozen unit costs, of the recipe.
        step_ratio: what a step of the arm costs in plain steps of the recipe (`arm_costs.step_ratios`).

    Attributes:
        state: "running", "done", "diverged", or "pruned" where the arm does not apply.
        reason: why it ended so.
    """

    def __init__(
        self,
        workload: Workload,
        arm: Arm,
        steps: int,
        reference: Reference,
        costs: UnitCosts,
        step_ratio: float = 1.0,
    ) -> None:
        self.state, self.reason = "running", ""
        self._arm, self._steps, self._reference, self._costs = arm, steps, reference, costs
        self._step_ratio = step_ratio
        self._kind = quality_of(workload)
        self._run: ArmRun | None = None
        every = reference.steps[1] - reference.steps[0] if len(reference.steps) > 1 else steps
        if arm.name == "truncated":
            self.state = "done"
            return
        try:
            self._run = ArmRun(workload, reference.seed, arm, steps=steps, eval_every=every)
        except NotApplicable as error:
            self.state, self.reason = "pruned", str(error)

    @property
    def done(self) -> bool:
        """Whether the run has ended."""
        return self.state != "running"

    def report(self) -> dict[str, Any]:
        """Train to the next evaluation and return the report of it; at the end of the run, set `state`."""
        if self._run is None:
            raise RuntimeError("the run is over: nothing is left to report")
        self._run.advance()
        if self._run.done:
            self.state = "diverged" if self._run.diverged else "done"
            self.reason = "held-out loss is not finite" if self._run.diverged else ""
        measured = self.result()
        return {
            "step": measured["steps"],
            "phase": "full",
            **{name: measured[name] for name in ("val_loss", "val_accuracy", "quality", "speedup")},
            **{name: measured[name] for name in ("speedup_counted", "backward_calls", "forward_only_calls")},
            "seconds": measured["train_seconds"],
        }

    def result(self) -> dict[str, Any]:
        """Return the columns of the run, at the step it has reached; none where the arm does not apply."""
        if self.state == "pruned":
            return {}
        total, reference = self._reference.steps[-1], self._reference
        if self._run is None:
            taken = self._steps
            loss, accuracy = reference.loss_at(taken), reference.accuracy_at(taken)
        else:
            taken = self._run.step
            curve = self._run.curve()
            loss = curve.val_loss[-1]
            accuracy = curve.val_accuracy[-1] if curve.val_accuracy else None
        step = round(taken * total / self._steps)
        calls = {**dict.fromkeys(Work, 0), Work.BATCH: taken, Work.PLAIN: taken}
        own = replace(self._costs, plain_step=self._step_ratio * self._costs.plain_step)
        counted = speedup_counted(step, calls, own) / self._step_ratio
        seconds = self._run.meter.seconds() if self._run else dict.fromkeys(Work, 0.0)
        each = self._run.meter.plain_step() if self._run else 0.0
        return {
            # its own plain steps are timed, and the recipe's cost 1 / step_ratio of them
            "speedup": speedup(step, seconds, calls, each) / self._step_ratio if self._run else counted,
            "speedup_counted": counted,
            "quality": quality(self._kind, reference, step, loss, accuracy),
            "val_loss": loss,
            "reference_val_loss": reference.loss_at(step),
            "val_accuracy": accuracy,
            "reference_val_accuracy": reference.accuracy_at(step),
            "backward_calls": taken,
            "forward_only_calls": 0,
            "backward_reduction_pct": 100 * (1 - taken / step),
            "train_seconds": sum(seconds.values()),
            "steps": step,
        }
