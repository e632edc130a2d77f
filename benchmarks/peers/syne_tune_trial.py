"""One trial of `with_syne_tune.py`, in a process of its own."""

from __future__ import annotations

import argparse
import pickle
from pathlib import Path
from typing import Any

from syne_tune import Reporter


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--job", type=Path)
    options, others = parser.parse_known_args()
    job = pickle.loads(options.job.read_bytes())
    for name, values in job.axes().items():
        parser.add_argument(f"--{name}", type=type(values[0]))
    point = vars(parser.parse_known_args(others)[0])
    del point["job"]
    reporter = Reporter()

    def report(values: dict[str, Any]) -> None:
        reporter(**{name: value for name, value in values.items() if value is not None})

    report(job.run(point, report))


if __name__ == "__main__":
    main()
