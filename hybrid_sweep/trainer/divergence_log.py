"""DivergenceLog: one CSV row a logical step, as the seed's guide writes it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hybrid_sweep.trainer.divergence import LOG_HEADER, DivergenceSignal, log_row


class DivergenceLog:
    """Writes `step,loss,predicted_loss,deviation,gradient_norm,confidence,level`, a line at a time.

    Args:
        path: the file, replaced.
    """

    def __init__(self, path: str | Path) -> None:
        self._file = Path(path).open("w", encoding="utf-8", buffering=1)  # noqa: SIM115
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
