"""DivergenceLog: one CSV row a logical step, as the original's guide writes it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hybrid_sweep.paths import user_path
from hybrid_sweep.trainer.divergence.monitor import DivergenceSignal

LOG_HEADER = "step,loss,predicted_loss,deviation,gradient_norm,confidence,level"


class DivergenceLog:
    """Writes `step,loss,predicted_loss,deviation,gradient_norm,confidence,level`, a line at a time.

    Args:
        path: the file, replaced.
    """

    def __init__(self, path: str | Path) -> None:
        self._file = user_path(path).open("w", encoding="utf-8", buffering=1)
        self._paused = False
        self._write(LOG_HEADER)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Write no rows within."""
        self._paused = True
        try:
            yield
        finally:
            self._paused = False

    def measured(self, step: int, loss: float, gradient_norm: float | None, signal: DivergenceSignal) -> None:
        """Write the row of a step whose loss was measured."""
        self._write(log_row(step, loss, gradient_norm, signal))

    def predicted(self, step: int, predicted_loss: float, confidence: float) -> None:
        """Write the row of a predicted step."""
        signal = DivergenceSignal.unmeasured(predicted_loss, confidence)
        self._write(log_row(step, None, None, signal))

    def _write(self, row: str) -> None:
        if not self._paused:
            self._file.write(row + "\n")


def log_row(step: int, loss: float | None, gradient_norm: float | None, signal: DivergenceSignal) -> str:
    """Return one row of `divergence_log.csv` below `LOG_HEADER`, without a line end.

    Four decimals, the level as an integer 0 to 3, and nothing where nothing is known (original, Logging
    divergence metrics, which writes 0.0 there).
    """
    deviation = None if math.isnan(signal.deviation_sigmas) else signal.deviation_sigmas
    values = (loss, signal.predicted_loss, deviation, gradient_norm, signal.confidence)
    cells = ("" if value is None else f"{value:.4f}" for value in values)
    return f"{step},{','.join(cells)},{signal.level:d}"
