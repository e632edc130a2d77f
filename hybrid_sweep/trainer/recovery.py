"""Recovery: judges measured losses, does what a signal asks for, keeps the checkpoint to go back to."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from math import inf, isfinite
from typing import Any

import torch
from torch import Tensor

from hybrid_sweep.trainer.config import HybridConfig
from hybrid_sweep.trainer.cost_meter import CostMeter
from hybrid_sweep.trainer.divergence.log import DivergenceLog
from hybrid_sweep.trainer.divergence.monitor import (
    Action,
    DivergenceLevel,
    DivergenceMonitor,
    DivergenceSignal,
)
from hybrid_sweep.trainer.gradient_watch import norm_of
from hybrid_sweep.trainer.learning_rates import stateful
from hybrid_sweep.trainer.phases import Phase, PhaseController
from hybrid_sweep.trainer.planner import JumpPlanner
from hybrid_sweep.trainer.records import Signal, TrainingDiverged
from hybrid_sweep.trainer.snapshot import Snapshot, Stateful
from hybrid_sweep.trainer.state import Position, Tally, Unread
from hybrid_sweep.trainer.train_step import TrainStep


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The parts of one run.

    Attributes:
        config: phases, gates and thresholds.
        plain: the real step, with model, optimizer and schedule.
        controller: which phase comes.
        planner: what a jump is made of.
        tally: the books of the run.
        position: where the run stands.
        meter: what each kind of work costs.
        log: one row a logical step; None where none is kept.
    """

    config: HybridConfig
    plain: TrainStep
    controller: PhaseController
    planner: JumpPlanner
    tally: Tally
    position: Position
    meter: CostMeter
    log: DivergenceLog | None


REMEMBERED = 20
"""Signals that are kept for a late reader."""
LARGEST_LOSS = 1e150
"""One beyond it, whose square no number holds, counts as infinite."""
NOTHING_DUE = (Action.CONTINUE, "")


class Recovery:
    """Owns the divergence monitor and the checkpoint.

    Args:
        parts: of the run.
    """

    def __init__(self, parts: Parts) -> None:
        self._config, self._plain, self._log = parts.config, parts.plain, parts.log
        self.monitor = self.new_monitor()
        self._controller, self._planner = parts.controller, parts.planner
        self._tally, self._position = parts.tally, parts.position
        self._reduced = False  # the horizon, or the Full phases, in this phase
        self._due = NOTHING_DUE  # strongest action that this block asks for, and why
        self._broken = False  # whether a loss of this block was not finite
        self._sane = False  # whether the newest step ended a block that asked for nothing
        self._unread: list[Unread] = []  # of this block
        self._judged: dict[int, DivergenceSignal] = {}  # newest signals, by step
        self._keep(Snapshot(*self.stateful()))

    def new_monitor(self) -> DivergenceMonitor:
        """Return a monitor that has seen nothing."""
        clipped = self._plain.max_grad_norm is not None
        return DivergenceMonitor(self._config, clipped=clipped, shown=True)

    def defer(self, taken: Unread) -> Signal:
        """Take note of a real step within a block, which is read where the block ends or a caller asks.

        Returns:
            As `watch`.
        """
        self._sane = False
        self._unread.append(taken)
        return partial(self._signal_of, taken.step)

    def watch(
        self,
        loss: float,
        gradient_norm: float | None,
        predicted: float | None,
        *,
        real: bool = False,
        gradient_sample: float | None = None,
    ) -> Signal:
        """Show a measured loss to the monitor, and at the end of a block do what the block asks for.

        A block ends with whatever is more than the loss of a real step (a gradient norm, which is measured
        every tenth, a forecast to be held against, a probe), and where `ends_block` says so. Its losses may
        be read and judged at any time before: only then is anything done about them, so that nothing depends
        on it.

        Returns:
            What the monitor says, for as long as that is remembered: some twenty steps.

        Raises:
            TrainingDiverged: when `max_rollbacks` is exceeded.
        """
        position, step = self._position, self._tally.steps
        self._sane = False
        self.catch_up()
        position.loss = loss
        self._tally.measure(loss, gradient_norm, gradient_sample)
        signal = self.monitor.observe(
            loss,
            gradient_norm,
            real=real,
            predicted_loss=predicted,
            steps_since_jump=position.since_jump(step),
            confidence=position.confidence,
            warmup=self._warmup,
            gradient_sample=gradient_sample,
        )
        self._heed(step, signal)
        if self._log:
            norm = self._plain.gradient_norm() if real else None
            self._log.measured(step, loss, norm, signal)
        if not real or gradient_norm is not None or predicted is not None or self.ends_block(step, loss):
            self._act()
        return lambda: signal

    def ends_block(self, step: int, loss: Any) -> bool:
        """Return whether a real step is the last of its block: of its phase, of the run, or of sane weights.

        A loss that is not at hand yet passes for finite, and so a NaN on a GPU ends its block up to nine
        steps late: to look at each would stall the device.
        """
        controller = self._controller
        broken = isinstance(loss, float) and not isfinite(loss)
        return broken or controller.remaining == 0 or step == controller.total_steps

    def settle(self) -> None:
        """Read what is unread, and if a loss was not finite go back now: a caller looks at the weights."""
        self.catch_up()
        if self._broken:
            self._act()

    def read(self) -> None:
        """Fetch the losses that are unread, all at once; when that is done changes nothing."""
        unread, self._unread = self._unread, []
        losses = _fetched([taken.loss for taken in unread])
        norms = iter(_fetched([norm_of(t.gradient) for t in unread if t.gradient is not None]))
        for taken, loss in zip(unread, losses, strict=True):
            sample = None if taken.gradient is None else next(norms)
            self._position.loss = loss
            self._tally.measure(loss, sample)
            self._planner.record(taken.step, loss, taken.gradient_norm, taken.learning_rate)
            self.monitor.defer(taken.step, loss, taken.since_jump, sample)

    def catch_up(self) -> None:
        """Read and judge what was measured so far; when that is done changes nothing."""
        self.read()
        for step, signal in self.monitor.catch_up(confidence=self._position.confidence, warmup=self._warmup):
            self._heed(step, signal)

    @property
    def _warmup(self) -> bool:
        return self._controller.phase is Phase.WARMUP

    def _heed(self, step: int, signal: DivergenceSignal) -> None:
        self._judged[step] = signal
        self._broken |= signal.name == "non_finite"
        if signal.level >= DivergenceLevel.WARNING:
            self._tally.warning_steps += 1
        self._due = max(self._due, (signal.action, signal.description))

    def _signal_of(self, step: int) -> DivergenceSignal | None:
        self.catch_up()
        return self._judged.get(step)

    def recover(self, why: str) -> None:
        """Go back to the checkpoint and take real steps from there.

        Raises:
            TrainingDiverged: when `max_rollbacks` is exceeded.
        """
        if self._tally.rollbacks >= self._config.max_rollbacks:
            raise TrainingDiverged(
                f"{why} at step {self._tally.steps}, after {self._tally.rollbacks} rollbacks"
            )
        self.rollback()
        self.force_phase(Phase.FULL, self._config.force_full_steps)

    def take_checkpoint(self) -> None:
        """Remember everything that `rollback` restores."""
        self.read()
        kept = self._checkpoint
        if kept.own:
            self._planner.recycle(kept.ours["planner"])
        self._keep(Snapshot(*self.stateful(), kept))

    def _keep(self, checkpoint: Snapshot) -> None:
        self._checkpoint = checkpoint
        self._checkpoint_at, self._checkpoint_real = self._tally.steps, self._position.real_steps
        self._marks = self._position.real_at, self._position.jump_at

    def renew_checkpoint(self) -> bool:
        """Take a checkpoint where the newest is old and nothing speaks against it; return whether it did.

        Old is by `checkpoint_interval` real steps. What speaks against it are a jump that real steps have
        not judged yet, and a hint at a fault: there is no way back from a checkpoint of broken weights.
        """
        real_steps = self._position.real_steps - self._checkpoint_real
        if not self._sane or real_steps < self._config.checkpoint_interval or not self.monitor.calm:
            return False
        self.take_checkpoint()
        return True

    def rollback(self) -> None:
        """Restore every part; the count of logical steps goes on, and the learning-rate schedule with it.

        Where no schedule was handed over the caller may step one, so the rates stay what they are.
        """
        self.leave_phase()
        self.follow_parameters()
        rates = [group["lr"] for group in self._plain.optimizer.param_groups]
        self._checkpoint.restore(*self.stateful())
        if self._plain.scheduler is None:
            for group, rate in zip(self._plain.optimizer.param_groups, rates, strict=True):
                group["lr"] = rate
        self._tally.rollbacks += 1
        since = self._tally.steps - self._checkpoint_at
        real_at, jump_at = self._marks
        self._position.real_at = real_at + since
        self._position.jump_at = None if jump_at is None else jump_at + since
        self._plain.skip(since)

    def leave_phase(self) -> None:
        """Close the books of the current phase."""
        self.catch_up()
        self._due, self._broken = NOTHING_DUE, False
        self._tally.leave(self._controller.phase)
        self._position.correct_losses = []
        self._reduced = False

    def prepare(self, phase: Phase) -> None:
        """Get ready for a phase that was just entered."""
        if phase is Phase.PREDICT:
            self.take_checkpoint()
            self._planner.plan()
        elif phase is Phase.FULL:
            self._planner.start_full()

    def follow_parameters(self) -> bool:
        """Take in what has become of the trainable parameters; return whether they are others.

        A jump that they were not part of ends here, and there is no way back to before.
        """
        if not self._planner.follow_parameters():
            return False
        if self._controller.phase is Phase.PREDICT:
            self._controller.end_phase()
        self.take_checkpoint()
        return True

    def force_phase(self, phase: Phase, steps: int) -> None:
        """Enter `phase` for the next `steps` logical steps, whatever the confidence."""
        self.follow_parameters()
        self.leave_phase()
        self._controller.force_phase(phase, steps)
        self.prepare(phase)

    def stateful(self) -> tuple[dict[str, Stateful], dict[str, Stateful]]:
        """Return torch's objects and ours that a snapshot is taken of, by name."""
        torchs: dict[str, Any] = {
            "model": self._plain.model,
            "optimizer": self._plain.optimizer,
            "scheduler": None if self._plain.scheduler is None else stateful(self._plain.scheduler),
        }
        ours: dict[str, Stateful] = {
            "plain": self._plain,
            "planner": self._planner,
            "controller": self._controller,
            "monitor": self.monitor,
        }
        return {name: part for name, part in torchs.items() if part is not None}, ours

    def state_dict(self) -> dict[str, Any]:
        """Return the checkpoint; the parts themselves are not in it."""
        return {
            "checkpoint": self._checkpoint.state_dict(),
            "checkpoint_at": [self._checkpoint_at, self._checkpoint_real],
            "marks": self._marks,
            "reduced": self._reduced,
            "due": [int(self._due[0]), self._due[1]],
            "broken": self._broken,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` returned."""
        self._checkpoint = Snapshot.from_state(state["checkpoint"])
        self._checkpoint_at, self._checkpoint_real = state["checkpoint_at"]
        self._marks = state["marks"]
        self._reduced = state["reduced"]
        self._due = Action(state["due"][0]), state["due"][1]
        self._broken = state["broken"]
        self._judged, self._unread, self._sane = {}, [], False

    def _act(self) -> None:
        """Carry out the strongest recovery that the block asks for; a Warmup is only ever rolled back.

        A loss or gradient that is large but finite is a reason to go back only behind a jump: where real
        steps alone have led there, they would again, and plain training is not to be held up.
        """
        (action, why), broken = self._due, self._broken
        self._due, self._broken = NOTHING_DUE, False
        jumped = self._position.jump_at is not None and self._position.jump_at > self._checkpoint_at
        if action is Action.ROLLBACK and not (broken or jumped):
            action = Action.FORCE_FULL
        self._judged = dict(list(self._judged.items())[-REMEMBERED:])
        self._sane = action is Action.CONTINUE
        if self._sane:
            return
        if action is Action.ROLLBACK:
            self.recover(why)
        elif self._warmup:
            return
        elif action is Action.FORCE_FULL:
            self.force_phase(Phase.FULL, self._config.force_full_steps)
        elif action is Action.FORCE_CORRECT and self._config.correct_steps > 0:
            self.force_phase(Phase.CORRECT, self._config.correct_steps)
        elif not self._reduced:  # once a phase: an alarm that lasts is one alarm
            self._reduced = True
            if action is Action.REDUCE_RATIO:
                self._controller.reduce_horizon()
            elif action is Action.INCREASE_FULL:
                self._controller.grow_full_steps()


def is_at_hand(loss: Any) -> bool:
    """Return whether reading a loss costs nothing: it is no tensor, or on the CPU."""
    return not isinstance(loss, Tensor) or loss.device.type == "cpu"


def as_number(loss: Any) -> float:
    """Return a loss as a number, infinite where it is too large to be reckoned with."""
    number = float(loss.detach() if isinstance(loss, Tensor) else loss)
    return number * inf if abs(number) > LARGEST_LOSS else number


def _fetched(losses: list[Any]) -> list[float]:
    """Return scalars as numbers, by one transfer from their device if they are tensors."""
    if losses and all(isinstance(loss, Tensor) for loss in losses):
        losses = torch.cat([loss.reshape(1) for loss in losses]).tolist()
    return list(map(as_number, losses))
