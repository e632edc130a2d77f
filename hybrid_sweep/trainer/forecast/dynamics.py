"""RSSM-lite: a GRU that learns how the loss moves, with a loss head and a weight-delta head.

Of the recurrent state-space model the deterministic path is kept. What the seed calls its stochastic state is
a softmax of some hidden units, hence a function of the deterministic one, and is left out. So is ŷ₁ of its
weight-delta head, the confidence in the direction: a good jump overshoots the valley, so the next real steps
go back, and the cosine that ŷ₁ would learn, within [0, 1], is 0 after most jumps that pay. Jumps scaled by it
were worse (by 4 and 6 % in quality, two ways, five seeds of the bundled digits).
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from math import atanh, exp, sqrt, tanh
from typing import Any

import numpy as np

from hybrid_sweep.errors import UserError
from hybrid_sweep.trainer.forecast.features import (
    FEATURES,
    LOG_LIMIT,
    Array,
    LossTracker,
    RealStep,
    Standardizer,
    StepHistory,
    as_array,
)
from hybrid_sweep.trainer.forecast.gru import Adam, Gru

MAX_HIDDEN_SIZE = 64
ROLLOUT_STRIDE = 16
LITERAL_REACH = 0.4
"""The seed teaches a group gate no further than this from ½."""
LITERAL_RATE = 0.2
"""Share of a gate's error, near its start, that one literal lesson removes; 0.1·lr hardly moves."""
OUTPUT_LIMIT = 8.0
"""Outputs are taught no further than this from 0."""


@dataclass(frozen=True, slots=True)
class Gates:
    """How far and where to trust the direction of a jump.

    Attributes:
        size: factor of the whole displacement, 1 + tanh ŷ₀, in [0, 2].
        groups: factor of each layer group, 2σ(ŷ) in [0, 2]; the original's literal σ(ŷ) in [0, 1].
    """

    size: float
    groups: tuple[float, ...]


class DeltaHead:
    """The weight-delta head: reads the gates of a jump off the state, one squashed linear output each.

    It starts at zero: size 1, every group at 1 (literal: at ½). A lesson moves the
    outputs, before their activations, all the way to what the targets ask for at that state (normalised
    least mean squares). The literal head takes the original's gradient steps instead, normalised by the state
    and by the steepest slope of each activation.

    Args:
        hidden_size: of the state.
        groups: layer groups; the head has 1 + groups outputs.
        literal: the original's group gates and lessons.
    """

    def __init__(self, hidden_size: int, groups: int, literal: bool) -> None:
        self.weight: Array = np.zeros((1 + groups, hidden_size), np.float32)
        self.bias: Array = np.zeros(1 + groups, np.float32)
        self._literal = literal

    def gates(self, state: Array) -> Gates:
        """Return the gates at `state` [hidden]."""
        size, *groups = _squash(self._outputs(state))
        scale = 1 if self._literal else 2
        return Gates(1 + size, tuple(scale * group for group in groups))

    def learn(self, state: Array, size: float, groups: Sequence[float]) -> None:
        """Take one step towards what the gates at `state` ought to have been."""
        outputs = self._outputs(state)
        if self._literal:
            reach = [min(max(group - 0.5, -LITERAL_REACH), LITERAL_REACH) + 0.5 for group in groups]
            gradient = delta_head_gradient(outputs, [size - 1, *reach])
            rates = [LITERAL_RATE] + [16 * LITERAL_RATE] * (len(outputs) - 1)
            move = [-rate * slope for rate, slope in zip(rates, gradient, strict=True)]
        else:
            wanted = _unsquash([size - 1, *(group / 2 for group in groups)])
            move = [after - before for before, after in zip(outputs, wanted, strict=True)]
        step = as_array(move) / (1 + state @ state)
        self.weight = self.weight + np.outer(step, state)
        self.bias = self.bias + step

    def state_dict(self) -> dict[str, Any]:
        """Return the weights; `learn` replaces them and never writes into them."""
        return {"weight": self.weight, "bias": self.bias}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` returned."""
        self.weight, self.bias = np.asarray(state["weight"]), np.asarray(state["bias"])

    def _outputs(self, state: Array) -> list[float]:
        outputs: list[float] = (self.weight @ state + self.bias).tolist()
        return outputs


class RssmLite:
    """Predicts the loss of the next steps and the gates of a jump; learns once a cycle, on the CPU.

    Weights come from a generator of its own, so that a run whose predictor only watches draws the same random
    numbers as plain training.

    Args:
        hidden_size: deterministic state, 1…64.
        members: weight sets of the ensemble; with more than one, `spread` is their disagreement.
        learning_rate: of the GRU and the loss head (Adam).
        bptt_steps: steps back through which the gradient of a prediction error goes.
        seed: of the initial weights.
        groups: layer groups of the weight-delta head, whose output has 1 + groups dimensions.
        literal: the original's group gates, σ(ŷ) taught towards clamp(t − 0.5, ±0.4) + 0.5.

    Raises:
        UserError: when `hidden_size`, `members` or `bptt_steps` is out of range.
    """

    def __init__(
        self,
        *,
        hidden_size: int = MAX_HIDDEN_SIZE,
        members: int = 1,
        learning_rate: float = 1e-3,
        bptt_steps: int = 1,
        seed: int = 0,
        groups: int = 8,
        literal: bool = False,
    ) -> None:
        if not 1 <= hidden_size <= MAX_HIDDEN_SIZE:
            raise UserError(f"hidden_size={hidden_size} is not allowed: choose 1 to {MAX_HIDDEN_SIZE}")
        if members < 1:
            raise UserError(f"members={members} is not allowed: choose 1 or more")
        if bptt_steps < 1:
            raise UserError(f"bptt_steps={bptt_steps} is not allowed: choose 1 or more")
        self._bptt_steps = bptt_steps
        generator = np.random.default_rng(seed % 2**64)
        self._members = [Gru(FEATURES, hidden_size, generator) for _ in range(members)]
        self._optimizers = [Adam(len(member.vector), learning_rate) for member in self._members]
        self._delta_head = DeltaHead(hidden_size, groups, literal)
        self._standardize = Standardizer()
        self._tracker = LossTracker()
        self._hidden: Array = np.zeros((members, hidden_size), np.float32)
        self._issued: Array | None = None
        self.spread = 0.0
        """Disagreement of the last training pass relative to the loss: the ensemble's deviation, or with one
        member the standard error of the mean of its one-step errors."""
        self.residuals: list[float] = []
        """Actual − predicted loss, in units of the loss, of each error of the last training pass."""

    def train(self, history: StepHistory, new_steps: int) -> list[float]:
        """Advance the hidden state over the newest real steps and take one Adam step on their Huber loss.

        Truncated backpropagation through `bptt_steps` steps, at most back to the first new one.

        Args:
            history: the real steps.
            new_steps: how many of the newest are new to the model.

        Returns:
            |L̂ − L| / smoothed loss for each new step but the first, predicted one step ahead and measured
            before the update.
        """
        rows = history.rows(new_steps)
        self.residuals = []
        if not rows:
            return []
        self._tracker = history.tracker
        features = as_array(rows)
        self._standardize.update(features)
        inputs, targets = self._standardize(features), features[1:, 0]
        traces = [
            member.run(inputs, start) for member, start in zip(self._members, self._hidden, strict=True)
        ]
        self._hidden = np.array([trace.states[-1] for trace in traces])
        if not len(targets):
            return []
        predicted = []
        for member, optimizer, trace in zip(self._members, self._optimizers, traces, strict=True):
            levels = member.levels(trace.states[:-1])
            slopes = ((levels - targets).clip(-1, 1) / len(targets)).astype(np.float32)
            optimizer.step(member.vector, member.gradient(trace, slopes, self._bptt_steps))
            predicted.append([_loss_ratio(level) for level in levels.tolist()])
        return self._measure(predicted, history.newest(new_steps))

    def rollout(self, steps: int, stride: int = ROLLOUT_STRIDE) -> list[float]:
        """Return the predicted losses of the `steps` logical steps after the newest real one.

        Predicted losses are fed back through the features; gradient norm and learning rate stay as they were.
        Changes no state.

        Args:
            steps: how many.
            stride: predicted steps between two advances of the GRU, which has nothing but its own smooth
                forecast to look at; the level that it predicts holds in between.
        """
        tracker, hidden = copy(self._tracker), self._hidden
        losses: list[float] = []
        while len(losses) < steps:
            pairs = list(zip(self._members, hidden, strict=True))
            ratios = [_loss_ratio(member.levels(state).item()) for member, state in pairs]
            for _ in range(min(stride, steps - len(losses))):
                losses.append(tracker.fast * sum(ratios) / len(ratios))
                norm, rate = tracker.gradient_fast, tracker.learning_rate
                tracker.push(tracker.step + 1, losses[-1], norm, rate)
            inputs = self._standardize(as_array([tracker.features()]))
            hidden = np.concatenate([member.run(inputs, state).states for member, state in pairs])
        return losses

    def gates(self) -> Gates:
        """Return the gates of a jump from here, and remember the state they came from for `learn_gates`.

        The weight-delta head reads the first member's state, scaled so that the head's bias outweighs it:
        what holds in every state is learned first, what depends on the state later.
        """
        self._issued = self._hidden[0] / np.float32(sqrt(self._hidden.shape[1]))
        return self._delta_head.gates(self._issued)

    def learn_gates(self, size_target: float, group_targets: Sequence[float]) -> None:
        """Teach the weight-delta head what the last gates ought to have been.

        Without gates issued since the last call there is nothing to learn, and nothing happens.

        Args:
            size_target: factor of the whole displacement that the next real displacement showed, in [0, 2].
            group_targets: the factor of each layer group, in [0, 2].
        """
        if self._issued is not None:
            self._delta_head.learn(self._issued, size_target, group_targets)
            self._issued = None

    def state_dict(self) -> dict[str, Any]:
        """Return everything that learning changes, as copies that later learning does not touch."""
        return {
            "weights": [member.vector.copy() for member in self._members],
            "moments": [optimizer.state_dict() for optimizer in self._optimizers],
            "delta_head": self._delta_head.state_dict(),
            "standardizer": self._standardize.state_dict(),
            "tracker": self._tracker.as_tuple(),
            "hidden": self._hidden,
            "issued": self._issued,
            "spread": self.spread,
            "residuals": self.residuals,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` returned, which stays as it is and can be taken up again."""
        parts = zip(self._members, self._optimizers, state["weights"], state["moments"], strict=True)
        for member, optimizer, weights, moments in parts:
            member.vector[:] = weights
            optimizer.load_state_dict(moments)
        self._delta_head.load_state_dict(state["delta_head"])
        self._standardize.load_state_dict(state["standardizer"])
        self._tracker = LossTracker(*state["tracker"])
        self._hidden = np.asarray(state["hidden"])
        self._issued = None if state["issued"] is None else np.asarray(state["issued"])
        self.spread, self.residuals = state["spread"], state["residuals"]

    def _measure(self, predicted: list[list[float]], real: list[RealStep]) -> list[float]:
        """Set `spread` and `residuals` from each member's loss ratios; return the relative errors."""
        means = [sum(ratios) / len(ratios) for ratios in zip(*predicted, strict=True)]
        pairs = list(zip(real, real[1:], means, strict=False))
        self.residuals = [after.loss - ratio * before.fast for before, after, ratio in pairs]
        scales = (abs(before.fast) or 1.0 for before in real)
        errors = [residual / scale for residual, scale in zip(self.residuals, scales, strict=False)]
        if len(predicted) > 1:
            self.spread = sum(map(_deviation, zip(*predicted, strict=True))) / len(errors)
        else:
            self.spread = _deviation(errors) / sqrt(len(errors))
        return [abs(error) for error in errors]


def delta_head_gradient(outputs: Sequence[float], targets: Sequence[float]) -> list[float]:
    """Return the gradient of ½‖squash(ŷ) − t‖² by ŷ, for outputs ŷ and targets t of the weight-delta head.

    The original's rule: e₀ = (tanh ŷ₀ − t₀)(1 − tanh² ŷ₀) and eᵢ = (σ(ŷᵢ) − tᵢ) σ'(ŷᵢ).
    """
    size, *rest = _squash(outputs)
    slopes = [1 - size * size] + [value * (1 - value) for value in rest]
    return [(v - t) * slope for v, t, slope in zip([size, *rest], targets, slopes, strict=True)]


def _squash(outputs: Sequence[float]) -> list[float]:
    """Return tanh of the first output and the sigmoid of every other one."""
    return [tanh(outputs[0]), *(0.5 * (1 + tanh(output / 2)) for output in outputs[1:])]


def _loss_ratio(level: float) -> float:
    return exp(min(max(level, -LOG_LIMIT), LOG_LIMIT))


def _deviation(values: Sequence[float]) -> float:
    mean = sum(values) / len(values)
    return sqrt(sum((value - mean) ** 2 for value in values) / len(values))


def _unsquash(values: Sequence[float]) -> list[float]:
    """Return the outputs whose squashed values come as near to `values` as ±`OUTPUT_LIMIT` allows."""
    centred = [values[0], *(2 * value - 1 for value in values[1:])]
    bound = tanh(OUTPUT_LIMIT / 2)
    size, *rest = [atanh(min(max(value, -bound), bound)) for value in centred]
    return [size, *(2 * value for value in rest)]
