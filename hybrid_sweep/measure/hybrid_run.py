"""Trial: one hybrid run of a workload, scored against its reference as it goes."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, MutableMapping
from importlib.metadata import version
from math import inf, isfinite, isnan
from typing import Any

import torch

from hybrid_sweep.control import ControlConfig
from hybrid_sweep.errors import UserError, named, one_line
from hybrid_sweep.measure.control_training import ControlTraining
from hybrid_sweep.measure.costs import UnitCosts
from hybrid_sweep.measure.curve import Curve
from hybrid_sweep.measure.reference import Reference, held_out, hybrid_of, peak_memory_bytes, start
from hybrid_sweep.measure.run_cache import TwinKey
from hybrid_sweep.measure.score import (
    behaviour,
    compared,
    overhead_pct,
    quality,
    speedup,
    speedup_bound,
    speedup_counted,
)
from hybrid_sweep.trainer.config import HybridConfig
from hybrid_sweep.trainer.cost_meter import CostMeter, PricedMeter, Work
from hybrid_sweep.trainer.records import TrainingDiverged
from hybrid_sweep.trainer.skill import Interval
from hybrid_sweep.trainer.state import realised_horizons
from hybrid_sweep.trainer.train_step import StepGenerator, run_to_completion
from hybrid_sweep.workload import Workload, metric_of, quality_of

FORMAT = 12
"""Of a run's state; another one is not gone on from."""
Twins = MutableMapping[TwinKey, Curve]
"""Runs that repeat the real steps of a hybrid run."""
SWEPT = ("max_predict_steps", "correction_interval", "confidence_threshold", "divergence_threshold")


class HybridRun:
    """Runs one configuration with one seed, a cycle a `report`; then `result` has its columns.

    Args:
        workload: what to train.
        config: the hybrid trainer's.
        reference: plain training with the same seed.
        costs: frozen unit costs.
        twins: of earlier trials, shared by those of a process; None leaves `quality_vs_frozen` and
            `quality_vs_lr_matched` out.
        report_every: logical steps; a report is made, and the model evaluated, at the end of the first cycle
            that has come to the next multiple. 1 reports every cycle.
        packed: whether it is trained together with others (`measure.pack`). No time is its own then: its
            work has the price of `costs`, so `speedup` is `speedup_counted`, and memory is not measured.
    """

    def __init__(
        self,
        workload: Workload,
        config: HybridConfig,
        reference: Reference,
        costs: UnitCosts,
        twins: Twins | None = None,
        *,
        report_every: int = 1,
        packed: bool = False,
    ) -> None:
        self.workload = workload
        self.config = config
        self.reference = reference
        self.costs = costs
        self.state = "running"
        self.reason = ""
        self._twins = twins
        self._report_every = self._report_at = report_every
        self._packed = packed
        self._steps = reference.steps[-1]
        self.trainer = hybrid_of(start(workload, reference.seed, self._steps), config, self._priced())
        self._target, self._target_step = reference.target()
        self._target_reached: int | None = None
        self._metric = metric_of(workload)
        self._evaluated: dict[str, float] = {}
        self._evaluated_at: int | None = None
        self._eval_seconds = 0.0
        self._followed_seconds = 0.0
        self._peak_memory_bytes = 0  # of the processes that the run has left

    @property
    def done(self) -> bool:
        """Whether the run has ended, well or badly."""
        return self.state != "running"

    def report(self) -> dict[str, Any] | None:
        """Train a cycle; return its report, None where none is due. At the end of the run, set `state`."""
        return run_to_completion(self.iter_report())

    def iter_report(self) -> StepGenerator[dict[str, Any] | None]:
        """As `report`, but leave the real steps to the caller, so that many can be taken at once."""
        more, step = (yield from self._training()), self.trainer.tally.steps
        if more and step < self._report_at:
            return None
        self._report_at = (step // self._report_every + 1) * self._report_every
        self._evaluate()
        if self._target_reached is None and self._evaluated["loss"] <= self._target:
            self._target_reached = step
        if not isfinite(self._evaluated["loss"]) and not more:
            self.state = "diverged"
            self.reason = self.reason or f"held-out loss is {self._evaluated['loss']} at the end"
        if not more and not self.done:
            self.state = "done"
        self.trainer.recovery.catch_up()
        state, tally = self.trainer.state(), self.trainer.tally
        _, horizon = realised_horizons(self.trainer.trace())
        return {
            "step": state.step,
            "phase": str(state.phase),
            "loss": state.loss,
            "val_loss": self._evaluated["loss"],
            "val_metric": self._evaluated.get(self._metric),
            "quality": self._quality(state.step),
            "speedup": self._speedup(),
            "speedup_counted": speedup_counted(state.step, self.trainer.meter.calls, self.costs),
            "realised_horizon": horizon,
            "micro_corrections": tally.micro_corrections,
            "confidence": state.confidence,
            "divergence_events": tally.warning_steps,
            "real_steps": tally.real_steps,
            "backward_calls": tally.backward_calls,
            "forward_only_calls": tally.forward_only_calls,
            "seconds": sum(self.trainer.meter.seconds().values()),
        }

    def state_dict(self) -> dict[str, Any]:
        """Return the run as it stands between two cycles; taking it changes nothing.

        It holds what `HybridTrainer.state_dict` does, so `checkpoint.to_bytes` takes it.
        """
        return {
            **self._header(),
            "trainer": self.trainer.state_dict(),
            "report_at": self._report_at,
            "target_reached": self._target_reached,
            "evaluated": dict(self._evaluated),
            "evaluated_at": self._evaluated_at,
            "eval_seconds": self._eval_seconds,
            "followed_seconds": self._followed_seconds,
            "peak_memory_bytes": self._peak_memory(),
        }

    def load_state_dict(
        self, state: dict[str, Any], *, may_differ: Collection[str] = (), under_new_config: bool = False
    ) -> None:
        """Go on from what `state_dict` of a run with the same seed and settings returned.

        Args:
            state: of that run.
            may_differ: settings in which it may have been another one.
            under_new_config: as of `HybridTrainer.load_state_dict`: whether any of them may differ.

        Raises:
            UserError: it is the state of another run, or of another version of this package.
        """
        for name, value in self._header().items():
            if state.get(name) != value:
                raise UserError(
                    f"the checkpoint has {name}={state.get(name)!r}, this run {value!r}: "
                    "go on with what the run began with, or start it again"
                )
        try:
            trainer = self.trainer
            trainer.load_state_dict(
                state["trainer"], may_differ=may_differ, under_new_config=under_new_config
            )
        except (RuntimeError, KeyError) as error:  # torch's words for a model that is not the same
            what = one_line(error)
            raise UserError(f"the checkpoint fits another workload ({what}): start the run again") from None
        self._report_at = state["report_at"]
        self._target_reached = state["target_reached"]
        self._evaluated = state["evaluated"]
        self._evaluated_at = state["evaluated_at"]
        self._eval_seconds = state["eval_seconds"]
        self._followed_seconds = state["followed_seconds"]
        self._peak_memory_bytes = state["peak_memory_bytes"]

    def follow(self) -> None:
        """Take note that all training so far was another trial's, which this one has taken over.

        It is charged for the training; the evaluations stay the other one's.
        """
        self._followed_seconds = sum(self.trainer.meter.seconds().values())
        self._eval_seconds = 0.0

    def result(self) -> dict[str, Any]:
        """Return the columns of the run (the contract's, in its names).

        A run that goes on has them at the step it has reached, and is not held against its twins: each is
        a training run of its own. Where one of them raises, its column is empty and `reason` says why.
        """
        return run_to_completion(self.iter_result())

    def iter_result(self) -> StepGenerator[dict[str, Any]]:
        """As `result`, but leave the real steps of the twins to the caller."""
        memory = self._memory_ratio()  # before a twin resets the peak
        meter, s = self.trainer.meter, self.trainer.training_statistics()
        if self._evaluated_at != s.steps:  # it is stopped where no report was due
            self._evaluate()
        seconds, trace = meter.seconds(), self.trainer.trace()
        taken = meter.calls[Work.PLAIN]  # each with a backward pass, or with as many as LBFGS wants
        loss, metric = self._evaluated["loss"], self._evaluated.get(self._metric)
        averaged = self.config.stop_fraction if self.config.tail == "average" else 0.0
        frozen = ControlConfig(name="frozen", tail=averaged)
        plain = meter.plain()
        diverged = self.state == "diverged"
        cuda = self.trainer.plain.parameters[0].is_cuda
        one_thread = torch.get_num_threads() == 1 and not (cuda or self._packed)
        return {
            **{name: getattr(self.config, name) for name in SWEPT},
            "speedup": self._speedup(),
            "speedup_counted": speedup_counted(s.steps, meter.calls, self.costs),
            "speedup_bound": speedup_bound(
                s.steps,
                taken,
                s.forward_only_calls,
                plain.mean,
                meter.forward_pass(),
            ),
            "quality": 0.0 if diverged else self._quality(s.steps),
            "quality_vs_truncated": 0.0 if diverged else self._quality(taken),
            "quality_vs_frozen": (yield from self._versus(frozen)),
            "val_loss": loss,
            "reference_val_loss": self.reference.loss_at(s.steps),
            "backward_reduction_pct": s.backward_reduction_pct,
            "backward_calls": s.backward_calls,
            "forward_only_calls": s.forward_only_calls,
            "realised_horizon_mean": s.realised_horizon_mean,
            "micro_corrections": s.micro_corrections,
            "abort_rate": s.abort_rate,
            "behaviour": behaviour(trace),
            "quality_vs_lr_matched": (
                yield from self._versus(ControlConfig(name="lr_matched", tail=averaged))
            ),
            "speedup_cpu": self._speedup_cpu() if one_thread else None,
            "loading_share": plain.loading_share,
            "val_metric": metric,
            "reference_val_metric": self.reference.metric_at(s.steps),
            "predict_phases": s.predict_phases,
            "max_confidence": s.max_confidence_reached,
            "mean_confidence": s.mean_confidence,
            "prediction_accuracy": s.prediction_accuracy,
            "calibration_error": s.calibration_error,
            "brier": s.brier,
            **_told("confidence_skill", s.confidence_skill),
            **_told("forecast_skill", s.forecast_skill),
            "warning_rate": s.warning_rate,
            "nonfinite_steps": s.nonfinite_steps,
            "rollbacks": s.rollbacks,
            "steps_to_target_ratio": (self._target_reached or inf) / max(self._target_step, 1),
            "peak_memory_ratio": memory,
            "overhead_pct": overhead_pct(seconds),
            "train_seconds": sum(seconds.values()),
            "followed_seconds": self._followed_seconds,
            "eval_seconds": self._eval_seconds,
            "steps": s.steps,
            "reliability": json.dumps(s.reliability),
            "config": self.config.to_json(indent=None),
        }

    def _training(self) -> StepGenerator[bool]:
        """Train to the end of the cycle; return whether the run goes on."""
        seed = self.reference.seed
        try:
            return (yield from self.trainer.cycle(lambda step: self.workload.batch(seed, step), self._steps))
        except TrainingDiverged as error:
            self.state, self.reason = "diverged", str(error)
            return False

    def _evaluate(self) -> None:
        began = time.perf_counter()
        trainer = self.trainer
        self._evaluated = held_out(self.workload, trainer.model, optimizer=trainer.optimizer)
        self._eval_seconds += time.perf_counter() - began
        self._evaluated_at = self.trainer.tally.steps

    def _quality(self, step: int) -> float:
        """Compare the newest evaluation with the reference's at logical step `step`."""
        loss, metric = self._evaluated["loss"], self._evaluated.get(self._metric)
        return quality(quality_of(self.workload), self.reference, step, loss, metric)

    def _speedup(self) -> float:
        meter = self.trainer.meter
        return speedup(self.trainer.tally.steps, meter.plain(), sum(meter.seconds().values()))

    def _speedup_cpu(self) -> float | None:
        cpu, plain = self.trainer.meter.cpu_seconds(), self.trainer.meter.cpu_plain()
        if cpu is None or plain is None:
            return None
        return speedup(self.trainer.tally.steps, plain, sum(cpu.values()))

    def _versus(self, arm: ControlConfig) -> StepGenerator[float | None]:
        """Score the run as if its twin were the reference; infinite where the twin diverged."""
        if self._twins is None or self.state != "done":
            return None
        seed, trace = self.reference.seed, self.trainer.trace()
        key = seed, tuple(trace), arm
        try:
            twin = self._twins[key]
        except KeyError:
            try:
                run = ControlTraining(
                    self.workload,
                    seed,
                    arm,
                    steps=self._steps,
                    trace=trace,
                    eval_every=None,
                    meter=self._priced(),
                    recipe_steps=self._steps,
                )
                yield from run.iter_finish()
                twin = self._twins[key] = run.curve()
            except Exception as error:  # the user's code, or memory: the hybrid run is done all the same
                said = f"no quality_vs_{arm.name}: its run raised {named(error)}"
                if said not in self.reason:
                    self.reason = "; ".join(filter(None, [self.reason, said]))
                return None
        own = self._evaluated["loss"], self._evaluated.get(self._metric)
        theirs = twin.val_loss[-1], twin.val_metric[-1] if twin.val_metric else None
        kind = quality_of(self.workload)
        return compared(kind, own, theirs, self.reference.gained(kind))

    def _priced(self) -> CostMeter | None:
        return PricedMeter(self.costs.prices()) if self._packed else None

    def _memory_ratio(self) -> float | None:
        if self._packed or not self.reference.peak_memory_bytes:
            return None
        return self._peak_memory() / self.reference.peak_memory_bytes

    def _peak_memory(self) -> int:
        return max(peak_memory_bytes(self.trainer.plain) or 0, self._peak_memory_bytes)

    def _header(self) -> dict[str, Any]:
        """Return what a state and the run that goes on from it have in common, beside the configuration."""
        return {
            "format": FORMAT,
            "version": version("hybrid-sweep"),
            "seed": self.reference.seed,
            "steps": self._steps,
        }


def _told(name: str, skill: Interval) -> dict[str, float | None]:
    """Return the columns of a skill; None where there is too little to tell it."""
    ends = {"": skill.value, "_low": skill.low, "_high": skill.high}
    return {f"{name}{end}": None if isnan(value) else value for end, value in ends.items()}
