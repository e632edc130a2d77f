"""The same seed gives the same numbers, whatever runs beside it.

    python benchmarks/concurrency.py [SWEEP]

Runs a sweep with one trial at a time and with two, and compares every loss, quality and counted speedup.
"""

import sys
import tempfile
from pathlib import Path

from hybrid_sweep import load_results, load_spec, run_sweep

COLUMNS = ["val_loss", "quality", "quality_vs_truncated", "quality_vs_frozen", "speedup_counted", "behaviour"]


def main() -> None:
    sweep = sys.argv[1] if len(sys.argv) > 1 else "quick"
    tables, steps = [], []
    with tempfile.TemporaryDirectory() as scratch:
        for concurrency in (1, 2):
            outcome = run_sweep(
                load_spec(sweep, {"concurrency": concurrency, "share": False}),
                Path(scratch) / str(concurrency),
            )
            results = load_results(outcome.folder.path)
            tables.append(results.trials.sort_values(["trial_id", "seed"]).reset_index(drop=True))
            steps.append(results.steps.sort_values(["trial_id", "seed", "step"]).reset_index(drop=True))
    for column in COLUMNS:
        print(
            f"{column:<22} identical in {len(tables[0])} runs: {tables[0][column].equals(tables[1][column])}"
        )
    for column in ("loss", "val_loss", "quality", "speedup_counted"):
        print(
            f"{column:<22} identical in {len(steps[0])} reports: {steps[0][column].equals(steps[1][column])}"
        )
    print(
        f"{'speedup (wall clock)':<22} largest difference: "
        f"{(tables[0]['speedup'] - tables[1]['speedup']).abs().max():.3f}"
    )


if __name__ == "__main__":
    main()
