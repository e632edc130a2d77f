"""How far a jump may go before training is unstable: the spectral radius of a cycle on a quadratic mode.

On a noiseless mode of curvature λ a step of gradient descent multiplies the distance θ to the minimum by
r = 1 − ηλ. A cycle (K real steps, then a jump of H steps) is then a linear map of θ and the predictor's
buffers, and training is stable where its spectral radius is at most 1 for every mode up to the largest ηλ
(docs/design-notes.md, Formulas, for an average that is updated every step).
"""

from __future__ import annotations

from math import gcd
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybrid_sweep.errors import unknown_name

BOUNDED = ("ema", "ema_nesterov", "outer_momentum", "outer_nesterov")
"""Predictors whose jump is a linear function of real steps that outlives the cycle: those with a bound."""
MAX_STRIDE = 10
"""Most real steps between two updates of the EMA: a tenth of the memory traffic, the same direction."""
LONGEST_RATIO = 64.0
"""H/K beyond which no search goes."""
Matrices = NDArray[np.float64]


def stride(full_steps: int) -> int:
    """Return s, the real steps from one update of the EMA of updates to the next: twice a Full phase."""
    return min(max(full_steps // 2, 1), MAX_STRIDE)


def spectral_radius(
    predictor: str, decay: float, full_steps: int, horizon: float, eta_lambda: Any, every: int | None = None
) -> Matrices:
    """Return the growth a cycle of each mode.

    Args:
        predictor: one of `BOUNDED`.
        decay: β, per real step.
        full_steps: K.
        horizon: H times the gate of the group, in steps of the direction.
        eta_lambda: ηλ of the modes, in (0, 2).
        every: s, steps between updates of the EMA; None is the trainer's own.

    Raises:
        UserError: a predictor without a bound.
    """
    rates = 1.0 - np.atleast_1d(np.asarray(eta_lambda, dtype=float))
    if predictor == "ema":
        return _ema(rates, decay, full_steps, horizon, every or stride(full_steps))
    if predictor not in BOUNDED:
        raise unknown_name("predictor with a stability bound", predictor, list(BOUNDED))
    return _largest(_outer_cycle(predictor, rates**full_steps, decay**full_steps, full_steps, horizon))


def is_stable(
    predictor: str, decay: float, full_steps: int, horizon: float, eta_lambda: float, every: int | None = None
) -> bool:
    """Return whether no mode in (0, `eta_lambda`] grows from cycle to cycle; arguments as above."""
    slow = np.geomspace(min(1e-3, eta_lambda / 2), eta_lambda, 100)
    modes = np.concatenate([slow, np.linspace(eta_lambda / 100, eta_lambda, 100)])
    return bool(spectral_radius(predictor, decay, full_steps, horizon, modes, every).max() <= 1.0)


def max_stable_ratio(
    predictor: str, decay: float, full_steps: int, eta_lambda: float = 1.5, every: int | None = None
) -> float:
    """Return the largest stable H/K below the first unstable one, at most 64; arguments as above."""
    low, high = 0.0, 0.25
    while is_stable(predictor, decay, full_steps, high * full_steps, eta_lambda, every):
        if high >= LONGEST_RATIO:
            return LONGEST_RATIO
        low, high = high, high + 0.25
    while high - low > 0.01:
        middle = (low + high) / 2
        if is_stable(predictor, decay, full_steps, middle * full_steps, eta_lambda, every):
            low = middle
        else:
            high = middle
    return low


def _ema(rates: Matrices, decay: float, full_steps: int, horizon: float, every: int) -> Matrices:
    """Return the radius for θ and e, over as many cycles as their updates take to fall on the same steps."""
    keep = decay**every
    cycles = every // gcd(full_steps, every)
    product = np.broadcast_to(np.eye(2), (len(rates), 2, 2))
    update = np.array([[1.0, 0.0], [1 - keep, keep]])
    since = 0  # real steps since the newest update of e
    for _ in range(cycles):
        left = full_steps
        while left:
            taken = min(every - since, left)
            product = _real_steps(rates**taken) @ product
            left, since = left - taken, since + taken
            if since == every:
                product, since = update @ product, 0
        reach = horizon / (every * keep / (1 - keep) + since)  # H v̂ = reach · (θ − e)
        product = np.array([[1 + reach, -reach], [reach, 1 - reach]]) @ product
    return _largest(product) ** (1 / cycles)


def _real_steps(rates: Matrices) -> Matrices:
    steps = np.zeros((len(rates), 2, 2))
    steps[:, 0, 0], steps[:, 1, 1] = rates, 1.0
    return steps


def _outer_cycle(
    predictor: str, shrink: Matrices, keep: float, full_steps: int, horizon: float
) -> NDArray[np.float64]:
    """Return the cycle's map of (θ, m, x): weights, momentum, and weights at the end of the last phase."""
    one, zero = np.ones_like(shrink), np.zeros_like(shrink)
    after = np.stack([shrink, zero, zero], axis=-1)  # θ at the end of this Full phase
    if predictor == "ema_nesterov":
        step = np.stack([shrink, zero, -one], axis=-1) / (full_steps + horizon)
    else:
        step = np.stack([shrink - 1, zero, zero], axis=-1) / full_steps
    momentum = keep * np.stack([zero, one, zero], axis=-1) + (1 - keep) * step
    ahead = keep * momentum + (1 - keep) * step if predictor == "outer_nesterov" else momentum
    return np.stack([after + horizon * ahead, momentum, after], axis=-2)


def _largest(matrices: Matrices) -> Matrices:
    radius: Matrices = np.abs(np.linalg.eigvals(matrices)).max(axis=-1)
    return radius
