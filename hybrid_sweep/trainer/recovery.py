"""Recovery: judges measured losses, does what a signal asks for, keeps the checkpoint to go back to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hybrid_sweep.trainer.config import HybridConfig
from hybrid_sweep.trainer.divergence import Action, DivergenceLevel, DivergenceMonitor, DivergenceSignal
from hybrid_sweep.trainer.divergence_log import DivergenceLog
from hybrid_sweep.trainer.phases import Phase, PhaseController
from hybrid_sweep.trainer.plain import PlainStep
from hybrid_sweep.trainer.planner import JumpPlanner
from hybrid_sweep.trainer.records import Position, Tally, TrainingDiverged
from hybrid_sweep.trainer.snapshot import Snapshot, Stateful


class Recovery:
    """Owns the divergence monitor and the checkpoint; the other parts are the trainer's.

    Args:
        config: thresholds, and what a recovery enforces.
        plain: model, optimizer and schedule.
        controller: the phases.
        planner: what a jump is made of.
        tally: the books of the run.
        position: where the run stands.
        force_phase: the trainer's.
        log: one row a measured step, where one is kept.
    """

    def __init__(
        self,
        config: HybridConfig,
        plain: PlainStep,
        controller: PhaseController,
        planner: JumpPlanner,
        tally: Tally,
        position: Position,
        *,
        force_phase: Callable[[Phase, int], None],
        log: DivergenceLog | None,
    ) -> None:
        self.monitor = DivergenceMonitor(threshold=config.divergence_threshold, rule=config.divergence_rule)
        self._config = config
        self._plain = plain
        self._controller = controller
        self._planner = planner
        self._tally = tally
        self._position = position
        self._force_phase = force_phase
        self._log = log
        self._reduced = False  # the horizon, or the Full phases, in this phase
        self.take_checkpoint()

    @property
    def checkpoint_due(self) -> bool:
        """Whether the checkpoint is `checkpoint_interval` logical steps old."""
        return self._tally.steps - self._checkpoint_at >= self._config.checkpoint_interval

    def watch(
        self, loss: float, gradient_norm: float | None, predicted: float | None, *, real: bool = False
    ) -> DivergenceSignal:
        """Show a measured loss to the monitor and do what it asks for.

        Raises:
            TrainingDiverged: when `max_rollbacks` is exceeded.
        """
        tally, position = self._tally, self._position
        position.loss = loss
        tally.measure(loss, gradient_norm)
        signal = self.monitor.observe(
            loss,
            gradient_norm,
            real=real,
            predicted_loss=predicted,
            steps_since_jump=None if position.jump_at is None else tally.steps - position.jump_at,
            confidence=position.confidence,
            warmup=self._controller.phase is Phase.WARMUP,
        )
        if self._log:
            norm = self._plain.gradient_norm() if real else None
            self._log.measured(tally.steps, loss, norm, signal)
        if signal.level >= DivergenceLevel.WARNING:
            tally.warning_steps += 1
        if signal.action is not Action.CONTINUE:
            self._act(signal)
        return signal

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
        self._force_phase(Phase.FULL, self._config.force_full_steps)

    def take_checkpoint(self) -> None:
        """Remember everything that `rollback` restores."""
        self._checkpoint = Snapshot(*self.parts())
        self._checkpoint_at = self._tally.steps
        self._marks = self._position.real_at, self._position.jump_at

    def rollback(self) -> None:
        """Restore every part; the count of logical steps goes on, and the learning-rate schedule with it."""
        self.leave_phase()
        self._checkpoint.restore(*self.parts())
        self._tally.rollbacks += 1
        since = self._tally.steps - self._checkpoint_at
        real_at, jump_at = self._marks
        self._position.real_at = real_at + since
        self._position.jump_at = None if jump_at is None else jump_at + since
        self._plain.skip(since)

    def leave_phase(self) -> None:
        """Close the books of the current phase."""
        self._tally.leave(self._controller.phase)
        self._position.correct_losses = []
        self._reduced = False

    def parts(self) -> tuple[dict[str, Stateful], dict[str, Stateful]]:
        """Return torch's objects and ours that a snapshot is taken of, by name."""
        torchs: dict[str, Any] = {
            "model": self._plain.model,
            "optimizer": self._plain.optimizer,
            "scheduler": self._plain.scheduler,
        }
        ours: dict[str, Stateful] = {
            "planner": self._planner,
            "controller": self._controller,
            "monitor": self.monitor,
        }
        return {name: part for name, part in torchs.items() if part is not None}, ours

    def state_dict(self) -> dict[str, Any]:
        """Return the checkpoint; the parts themselves are not in it."""
        return {
            "checkpoint": self._checkpoint.state_dict(),
            "checkpoint_at": self._checkpoint_at,
            "marks": self._marks,
            "reduced": self._reduced,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` returned."""
        self._checkpoint = Snapshot.from_state(state["checkpoint"])
        self._checkpoint_at, self._marks = state["checkpoint_at"], state["marks"]
        self._reduced = state["reduced"]

    def _act(self, signal: DivergenceSignal) -> None:
        """Carry out the recovery that a signal asks for; a Warmup is only ever rolled back."""
        if signal.action is Action.ROLLBACK:
            self.recover(signal.description)
        elif self._controller.phase is Phase.WARMUP:
            return
        elif signal.action is Action.FORCE_FULL:
            self._force_phase(Phase.FULL, self._config.force_full_steps)
        elif signal.action is Action.FORCE_CORRECT and self._config.correct_steps > 0:
            self._force_phase(Phase.CORRECT, self._config.correct_steps)
        elif not self._reduced:  # once a phase: an alarm that lasts is one alarm
            self._reduced = True
            if signal.action is Action.REDUCE_RATIO:
                self._controller.reduce_horizon()
            elif signal.action is Action.INCREASE_FULL:
                self._controller.grow_full_steps()
