"""A GRU that reads losses, in NumPy, with its gradient by hand.

Its matrices are so small that torch would spend most of the time on dispatching.
"""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

import numpy as np

from hybrid_sweep.trainer.forecast.features import Array


class Trace(NamedTuple):
    """A pass over n inputs: what the gradient needs of each step, n rows each.

    `before` and `states` are the hidden states around the step, `reset`, `update` and `candidate` the gates
    r, z and n, `recurrent` what r multiplies.
    """

    inputs: Array
    before: Array
    reset: Array
    update: Array
    candidate: Array
    recurrent: Array
    states: Array


class Gru:
    """A gated recurrent unit (1406.1078, in cuDNN's form) and a linear head on its state.

    r, z = σ(Wx + Uh + b), n = tanh(Wx + b + r∘(Uh + c)), h' = (1 − z)∘n + z∘h, level = v·h' + d. The rows of
    W, U and b belong to r, z and n, in that order; every parameter is a view into `vector`.

    Args:
        inputs: features a step.
        hidden: size of the state.
        generator: draws the initial weights.
    """

    def __init__(self, inputs: int, hidden: int, generator: np.random.Generator) -> None:
        self.hidden = hidden
        rows, bound = 3 * hidden, hidden**-0.5
        shapes = [(rows, inputs), (rows, hidden), (rows,), (hidden,), (hidden,), (1,)]
        ends = np.cumsum([prod(shape) for shape in shapes])
        bounds = np.repeat([bound, bound, bound, bound, 0.1 * bound, 0.0], np.diff(ends, prepend=0))
        self.vector: Array = generator.uniform(-bounds, bounds).astype(np.float32)
        views = np.split(self.vector, ends[:-1])
        self.w, self.u, self.b, self.c, self.v, self.d = map(np.reshape, views, shapes)

    def run(self, inputs: Array, start: Array) -> Trace:
        """Read n `inputs` [n, features] one after the other from the state `start` [hidden]."""
        size, steps = self.hidden, len(inputs)
        given = inputs @ self.w.T + self.b
        gates, candidate, recurrent = (np.empty((steps, k * size), given.dtype) for k in (2, 1, 1))
        reset, update = gates[:, :size], gates[:, size:]
        states = np.empty((steps + 1, size), given.dtype)
        states[0] = start
        from_state = np.empty(3 * size, given.dtype)
        to_gates, to_candidate = from_state[: 2 * size], from_state[2 * size :]
        rows = zip(
            given[:, : 2 * size],
            given[:, 2 * size :],
            gates,
            reset,
            update,
            candidate,
            recurrent,
            strict=True,
        )
        for i, (given_gates, given_candidate, gate, r, z, n, again) in enumerate(rows):
            h, h_next = states[i], states[i + 1]
            np.dot(self.u, h, out=from_state)
            _sigmoid(np.add(given_gates, to_gates, out=gate))
            np.add(to_candidate, self.c, out=again)
            np.multiply(r, again, out=n)
            n += given_candidate
            np.tanh(n, out=n)
            np.subtract(h, n, out=h_next)
            h_next *= z
            h_next += n
        return Trace(inputs, states[:-1], reset, update, candidate, recurrent, states[1:])

    def levels(self, states: Array) -> Array:
        """Return what the head reads off `states` [n, hidden]."""
        return states @ self.v + self.d

    def gradient(self, trace: Trace, slopes: Array, bptt_steps: int = 1) -> Array:
        """Return the gradient by `vector` of a loss whose slopes by the first n levels are `slopes` [n].

        Truncated backpropagation through time (original, Enhancement 4): each level reaches back through
        `bptt_steps` steps, and the state before them counts as a constant. The slopes by the states of all
        rows go back together, one step a pass, and the weights see their sum.
        """
        inputs, before, reset, update, candidate, recurrent, states = (part[: len(slopes)] for part in trace)
        by_candidate = (1 - update) * (1 - candidate * candidate)
        by_reset = by_candidate * recurrent * reset * (1 - reset)
        by_update = (before - candidate) * update * (1 - update)
        by_state = np.stack([by_reset, by_update, by_candidate * reset], axis=1)
        d_states = reached = np.outer(slopes, self.v)
        for _ in range(1, min(bptt_steps, len(slopes))):
            later = slice(1, len(reached))
            d_later = (reached[later, None] * by_state[later]).reshape(-1, 3 * self.hidden)
            reached = d_later @ self.u + reached[later] * update[later]
            d_states[: len(reached)] += reached
        d_from_state = (d_states[:, None] * by_state).reshape(-1, 3 * self.hidden)
        d_given = d_from_state.copy()
        d_given[:, 2 * self.hidden :] = d_states * by_candidate
        d_recurrent = d_from_state[:, 2 * self.hidden :]
        parts = [d_given.T @ inputs, d_from_state.T @ before, d_given.sum(axis=0), d_recurrent.sum(axis=0)]
        return np.concatenate([*(part.ravel() for part in parts), slopes @ states, [slopes.sum()]])


class Adam:
    """Adam (1412.6980) on one vector.

    Args:
        size: of the vector.
        rate: learning rate.
    """

    def __init__(self, size: int, rate: float) -> None:
        self._rate = rate
        self._count = 0
        self._mean = np.zeros(size, np.float32)
        self._square = np.zeros(size, np.float32)

    def step(self, vector: Array, gradient: Array) -> None:
        """Move `vector` in place."""
        self._count += 1
        self._mean += (1 - 0.9) * (gradient - self._mean)
        self._square += (1 - 0.999) * (gradient * gradient - self._square)
        mean_bias, square_bias = 1 - 0.9**self._count, 1 - 0.999**self._count
        vector -= self._rate / mean_bias * self._mean / (np.sqrt(self._square / square_bias) + 1e-8)

    def state_dict(self) -> dict[str, Any]:
        """Return the moments, copied."""
        return {"count": self._count, "mean": self._mean.copy(), "square": self._square.copy()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` returned."""
        self._count = state["count"]
        self._mean, self._square = (np.asarray(state[name]).copy() for name in ("mean", "square"))


def _sigmoid(values: Array) -> None:
    """Replace `values` by σ(values), without overflow."""
    values *= 0.5
    np.tanh(values, out=values)
    values *= 0.5
    values += 0.5
