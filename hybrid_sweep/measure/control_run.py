"""ControlRun: one control as a trial of a sweep, in the same plane of speedup and quality as the hybrid."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Any

from pydantic import TypeAdapter

from hybrid_sweep.control import ControlConfig
from hybrid_sweep.measure.control_optimizers import NotApplicable
from hybrid_sweep.measure.control_training import ControlTraining
from hybrid_sweep.measure.reference import Reference
from hybrid_sweep.measure.run_cache import RunCache
from hybrid_sweep.measure.score import quality, speedup
from hybrid_sweep.trainer.cost_meter import PlainSteps, Work
from hybrid_sweep.workload import Workload, quality_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Where a control's run stands when it is evaluated.

    Attributes:
        step: real steps so far.
        backward_calls: backward passes so far.
        val_loss: held-out loss.
        val_metric: the workload's metric, where `evaluate` gives it.
        seconds: of each kind of work so far.
        plain: `CostMeter.plain`, its real steps with their batches.
    """

    step: int
    backward_calls: int
    val_loss: float
    val_metric: float | None
    seconds: dict[str, float]
    plain: PlainSteps


EVALUATIONS = TypeAdapter(list[Evaluation])


class ControlRun:
    """Runs one control with one seed, an evaluation a `report`; then `result` has its columns.

    Its real steps stand for the N logical steps of the reference: progress is told in those, and held-out
    results are compared with the reference's at the same logical step.

    Args:
        workload: what to train.
        arm: which control.
        steps: real steps.
        reference: plain training with the same seed; "truncated" is read from it and trains nothing.
        step_ratio: what a step of the arm costs in plain steps of the recipe, both with the loading of their
            batch (`arm_costs.step_ratios`).
        runs: where a run that has ended is kept, and found instead of being run again; its seconds are then
            those of the run. None keeps nothing.

    Attributes:
        state: "running", "done", "diverged", or "pruned" where the arm does not apply.
        reason: why it ended so.
        from_cache: whether nothing is trained, since it was before.
    """

    def __init__(
        self,
        workload: Workload,
        arm: ControlConfig,
        steps: int,
        reference: Reference,
        step_ratio: float = 1.0,
        runs: RunCache | None = None,
    ) -> None:
        self.state, self.reason, self.from_cache = "running", "", False
        self._steps, self._reference, self._runs = steps, reference, runs
        self._step_ratio = step_ratio
        self._kind = quality_of(workload)
        self._run: ControlTraining | None = None
        self._seen: list[Evaluation] = []
        self._ahead: list[Evaluation] = []
        every = reference.steps[1] - reference.steps[0] if len(reference.steps) > 1 else steps
        self._parts = {"seed": reference.seed, "arm": arm.model_dump(), "steps": steps, "eval_every": every}
        if arm.name == "truncated":
            self.state = "done"
            return
        if runs and (kept := runs.get("arms", EVALUATIONS, **self._parts)):
            self._ahead, self.from_cache = kept, True
            return
        try:
            self._run = ControlTraining(
                workload,
                reference.seed,
                arm,
                steps=steps,
                eval_every=every,
                recipe_steps=reference.steps[-1],
            )
        except NotApplicable as error:
            self.state, self.reason = "pruned", str(error)

    @property
    def done(self) -> bool:
        """Whether the run has ended."""
        return self.state != "running"

    def report(self) -> dict[str, Any] | None:
        """Train to the next evaluation and return the report of it; at the end of the run, set `state`.

        None where it turns out at the first step that the arm does not apply.

        Raises:
            RuntimeError: the run is over.
        """
        if self.done:
            raise RuntimeError("the run is over: nothing is left to report")
        try:
            self._seen.append(self._next())
        except NotApplicable as error:
            self.state, self.reason = "pruned", str(error)
            return None
        over = not self._ahead if self._run is None else self._run.done
        if over:
            diverged = not isfinite(self._seen[-1].val_loss)
            self.state = "diverged" if diverged else "done"
            self.reason = "held-out loss is not finite" if diverged else ""
        if over and self._runs and not self.from_cache:
            self._runs.put("arms", self._seen, **self._parts)
        measured = self.result()
        return {
            "step": measured["steps"],
            "phase": "full",
            **{name: measured[name] for name in ("val_loss", "val_metric", "quality", "speedup")},
            **{name: measured[name] for name in ("speedup_counted", "backward_calls", "forward_only_calls")},
            "seconds": measured["train_seconds"],
        }

    def result(self) -> dict[str, Any]:
        """Return the columns of the run, at the step it has reached; none where the arm does not apply."""
        if self.state == "pruned":
            return {}
        total, reference = self._reference.steps[-1], self._reference
        newest = self._seen[-1] if self._seen else None
        if newest is None:  # "truncated"
            taken = self._steps
            loss, metric = reference.loss_at(taken), reference.metric_at(taken)
            seconds = dict.fromkeys(Work, 0.0)
        else:
            taken, loss, metric = newest.step, newest.val_loss, newest.val_metric
            seconds = {kind: newest.seconds[kind] for kind in Work}
        step = round(taken * total / self._steps)
        counted = step / (taken * self._step_ratio)  # plain steps over its own, whatever they cost
        return {
            # its own plain steps are timed, and the recipe's cost 1 / step_ratio of them
            "speedup": speedup(step, newest.plain, sum(seconds.values())) / self._step_ratio
            if newest
            else counted,
            "speedup_counted": counted,
            "quality": quality(self._kind, reference, step, loss, metric),
            "val_loss": loss,
            "reference_val_loss": reference.loss_at(step),
            "val_metric": metric,
            "reference_val_metric": reference.metric_at(step),
            "backward_calls": newest.backward_calls if newest else round(taken * reference.passes),
            "forward_only_calls": 0,
            "backward_reduction_pct": 100 * (1 - taken / step),
            "loading_share": newest.plain.loading_share if newest else None,
            "train_seconds": sum(seconds.values()),
            "steps": step,
        }

    def _next(self) -> Evaluation:
        """Train to the next evaluation, or take the one that was kept."""
        if self._run is None:
            return self._ahead.pop(0)
        self._run.advance()
        curve = self._run.curve()
        return Evaluation(
            step=self._run.step,
            backward_calls=curve.backward_calls[-1],
            val_loss=curve.val_loss[-1],
            val_metric=curve.val_metric[-1] if curve.val_metric else None,
            seconds={str(kind): seconds for kind, seconds in self._run.meter.seconds().items()},
            plain=self._run.meter.plain(),
        )
