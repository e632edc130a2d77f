"""DynamicModes: the weights' slow modes, fitted to what they did and run on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from hybrid_sweep.trainer.predictors.windowed import Windowed

RANK = 3
"""Most modes that are fitted."""
NOISE = 1e-6
"""Share of the largest eigenvalue of the Gram matrix below which a direction is rounding error."""


class DynamicModes(Windowed):
    """Dynamic mode decomposition of rank ≤ 3 of the window-averaged weights, in its Gram form.

    Successive increments are taken as u' = A u. With X the increments that have a successor, Y those
    successors, and XᵀX = W S² Wᵀ of rank r: Ã = S⁻¹Wᵀ (XᵀY) W S⁻¹ needs inner products only, and the
    prediction is a combination of the columns of X. A mode of eigenvalue λ a window goes on with λ^(1/q) a
    step; one that would grow goes on as it is (λ clipped to 1), and one that oscillates (λ complex or
    negative) is dropped. Increments instead of centred snapshots, so that the fixed point need not be
    guessed (Tano et al. 2020, arXiv:2006.14371).

    Clipped, no mode goes further than straight ahead, as a mean over the window would: H/K ≤ 1 is safe where
    a mode is misread as slow. Needs K ≥ 3. Memory: ten copies of the weights (eight increments, mean,
    sum). Cost: one pass over the weights a real step, eight inner products a
    window, eight passes a jump.
    """

    kept = 8

    @property
    def ready(self) -> bool:
        """Whether an increment and its successor are known."""
        return any(self.follows[1:])

    def displacement(self, begin: float, end: float) -> Tensor:
        """Return how far the fitted modes go from `begin` to `end`."""
        coefficients = np.zeros(len(self.increments))
        later = [i for i, follows in enumerate(self.follows) if follows and i > 0]
        if later:
            earlier = [i - 1 for i in later]
            coefficients[earlier] = self._fit(np.array(self.gram), earlier, later, begin, end)
        return self.combined(coefficients.tolist())

    def _fit(
        self, gram: NDArray[np.float64], earlier: list[int], later: list[int], begin: float, end: float
    ) -> NDArray[np.float64]:
        """Return the coefficients of the `earlier` increments."""
        if not np.isfinite(gram).all():
            return np.full(len(earlier), np.nan)
        squares, vectors = np.linalg.eigh(gram[np.ix_(earlier, earlier)])
        large = np.flatnonzero(squares > NOISE * max(squares[-1], np.finfo(float).tiny))[-RANK:]
        if not large.size:
            return np.zeros(len(earlier))
        basis = vectors[:, large] / np.sqrt(squares[large])  # U = X·basis
        growths, modes = np.linalg.eig(basis.T @ gram[np.ix_(earlier, later)] @ basis)
        now = np.linalg.lstsq(modes, basis.T @ gram[earlier, -1], rcond=None)[0]
        ahead = [_ahead(growth, self.window_steps, begin, end) for growth in growths]
        coefficients: NDArray[np.float64] = np.real(basis @ (modes @ (ahead * now)))
        return coefficients


def _ahead(growth: complex, window_steps: int, begin: float, end: float) -> float:
    """Return a mode's displacement from `begin` to `end` over its newest increment.

    With ρ = λ^(1/q) and x the mode now, the newest increment of window means is
    x (1 − 1/λ)² / (q (1 − 1/ρ)), and the displacement x (ρ^end − ρ^begin).
    """
    if abs(growth.imag) > NOISE or growth.real <= 0:
        return 0.0
    if growth.real > 1 - NOISE:
        return (end - begin) / window_steps
    rate = growth.real ** (1 / window_steps)
    moved = rate**end - rate**begin
    return float(window_steps * moved * (1 - 1 / rate) / (1 - 1 / growth.real) ** 2)
