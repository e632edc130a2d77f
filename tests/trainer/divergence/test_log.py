"""A row of the divergence log, as the original's guide has it and pandas reads it."""

import csv
import io
import math

import numpy as np
import pandas as pd

from hybrid_sweep.trainer.divergence.log import LOG_HEADER, log_row
from hybrid_sweep.trainer.divergence.monitor import (
    Action,
    DivergenceLevel,
    DivergenceMonitor,
    DivergenceSignal,
)


def test_the_header_is_the_seeds() -> None:
    assert LOG_HEADER == "step,loss,predicted_loss,deviation,gradient_norm,confidence,level"


def test_a_row_has_four_decimals_and_an_integer_level() -> None:
    signal = DivergenceSignal(
        DivergenceLevel.WARNING, "loss_deviation", "", Action.FORCE_FULL, 0.5, 3.14159, 0.9
    )
    assert log_row(7, 0.12345, 2.0, signal) == "7,0.1235,0.5000,3.1416,2.0000,0.9000,2"


def test_what_is_missing_is_empty_and_pandas_reads_it() -> None:
    monitor = DivergenceMonitor()
    rows = [
        log_row(1, 2.5, 1.0, monitor.observe(2.5, 1.0)),
        log_row(2, None, None, DivergenceSignal.unmeasured(2.4, 0.8)),
        log_row(3, math.nan, None, monitor.observe(math.nan)),
    ]
    assert rows == ["1,2.5000,,,1.0000,,0", "2,,2.4000,,,0.8000,0", "3,nan,,,,,3"]
    table = pd.read_csv(io.StringIO("\n".join([LOG_HEADER, *rows])))
    assert list(table.columns) == next(csv.reader([LOG_HEADER]))
    assert table["step"].dtype == table["level"].dtype == np.int64
    assert all(table[name].dtype == np.float64 for name in LOG_HEADER.split(",")[1:-1])
