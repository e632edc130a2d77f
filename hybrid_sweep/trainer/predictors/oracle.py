"""Oracle: the control that knows the future, because it trains it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from math import isfinite
from typing import Any, Self

import torch
from torch import Tensor

from hybrid_sweep.errors import UserError
from hybrid_sweep.trainer.config import HybridConfig
from hybrid_sweep.trainer.cost_meter import CostMeter, Work
from hybrid_sweep.trainer.layer_groups import LayerGroups
from hybrid_sweep.trainer.optimizers import parts_of
from hybrid_sweep.trainer.predictors.base import Predictor, Realised
from hybrid_sweep.trainer.random_state import random_state, set_random_state
from hybrid_sweep.trainer.train_step import TrainStep


class Oracle(Predictor):
    """The true displacement: a copy of model, optimizer and schedule trains on the very batches to come.

    A bound on what any prediction of the weights could reach (docs/design-notes.md), never a speedup:
    every step of the copy is counted as the plain step that it is, backward pass and all. The optimizer's
    state and BatchNorm's buffers stay behind, as in any jump, so even this is not plain training. The
    schedule is in the displacement, and neither gates nor veto judge it.

    Stable wherever plain training is. It needs `HybridTrainer.run`, which can load batches ahead. Memory: a
    copy of the weights for each sub-jump, and while it trains another of model and optimizer.
    Cost: that of the predicted steps.

    Args:
        groups: the weights, shared with the trainer.
        decay: of other predictors; unused.
        full_steps: K, real steps of a Full phase.
        plain: the training step of the run.
    """

    exact = True

    def __init__(self, groups: LayerGroups, decay: float, full_steps: int, plain: TrainStep) -> None:
        super().__init__(groups, decay, full_steps)
        self._plain = plain
        self._twin = plain
        self._path: dict[float, Tensor] = {}  # weights of the copy, by steps ahead

    @classmethod
    def from_config(cls, groups: LayerGroups, config: HybridConfig, plain: TrainStep) -> Self:
        """Build the predictor of a run."""
        return cls(groups, config.velocity_decay, config.full_steps, plain)

    def foresee(
        self, load: Callable[[int], Any], after: int, begin: int, steps: int, meter: CostMeter
    ) -> None:
        """Train the copy on the batches of the next `steps` logical steps after step `after`.

        Args:
            load: `load(step)`, the run's batches.
            after: newest logical step.
            begin: steps of this horizon before that; 0 begins a new copy.
            steps: of this (sub-)horizon.
            meter: every step is charged to it as a plain one.
        """
        if begin == 0:
            self._twin = _copied(self._plain)
            self._path = {0: self._weights()}
        before = random_state()
        for step in range(after + 1, after + steps + 1):
            batch = load(step)
            meter.lap(Work.BATCH)
            self._twin(batch)
            meter.lap(Work.PLAIN)
        set_random_state(before)
        self._path[begin + steps] = self._weights()
        self._plain.steps, self._plain.backward_calls = self._twin.steps, self._twin.backward_calls

    def displacement(self, begin: float, end: float) -> Tensor:
        """Return what the copy did from `begin` to `end`; nothing where it was not trained so far."""
        if not {begin, end} <= self._path.keys():
            return torch.zeros_like(self.groups.vector)
        return self._path[end] - self._path[begin]

    def close_full(self) -> tuple[Realised | None, float | None]:
        """End a Full phase; what is to come is not known yet, so there is nothing to compare."""
        self.finite = isfinite(float(torch.linalg.vector_norm(self.groups.vector)))
        self._path = {}
        return None, None

    def _weights(self) -> Tensor:
        return self.groups.flat([p.detach() for p in self._twin.parameters])

    def state_dict(self) -> dict[str, Any]:
        """Return every buffer; the copy itself lives only within a Predict phase."""
        return {**super().state_dict(), "path": dict(self._path)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state)
        self._path = {end: self._here(weights) for end, weights in state["path"].items()}


def _copied(plain: TrainStep) -> TrainStep:
    """Copy a training step with its model, optimizer and schedule.

    Raises:
        UserError: the optimizer's copy would train the original.
    """
    shared: list[Any] = [plain.loss_fn, plain.backward]  # may belong to the user's data
    memo: dict[int, Any] = {id(function): function for function in shared}
    twin = copy.deepcopy(plain, memo)
    for part in parts_of(plain.optimizer):
        own = vars(memo.get(id(part), part))
        for name, value in vars(part).items():  # torch's optimizers are copied without what they add
            if name not in own and not callable(value):
                own[name] = copy.deepcopy(value, memo)
    trained = {id(p) for p in plain.parameters}
    if any(id(p) in trained for group in twin.optimizer.param_groups for p in group["params"]):
        raise UserError(
            f"predictor='oracle' trains a copy, and {type(plain.optimizer).__name__} cannot be copied: its "
            "parameters are kept outside its attributes; take another predictor"
        )
    return twin
