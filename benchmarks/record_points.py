"""Record a real sweep for the simulator: the full grid of six settings, each point trained once.

    nice -n 10 python benchmarks/record_points.py [--workers 2] [--to benchmarks/data/points.parquet]

The original's test model on the bundled digits, 500 steps, one seed, no frozen control. A row is a point: its
settings, state, `speedup_counted` and `quality`, and its reports as three lists. Unit costs are measured
once, before the first point, and stand in the file's metadata. About ten minutes on two cores.
"""

import argparse
import itertools
import json
import multiprocessing
import platform
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from hybrid_sweep.measure.costs import measure_unit_costs
from hybrid_sweep.measure.hybrid_run import HybridRun
from hybrid_sweep.measure.reference import reference_run
from hybrid_sweep.measure.workload_builder import warm_up
from hybrid_sweep.trainer.config import HybridConfig
from hybrid_sweep.workload import load_workload

WORKLOAD, STEPS, SEED = "trainables.mnist_mlp:MnistMlp", 500, 0
TRAINER = {"warmup_steps": 50}
SPACE = {
    "max_predict_steps": [20, 40, 60, 100, 150],
    "correction_interval": [0, 10, 15, 25],
    "confidence_threshold": [0.3, 0.5, 0.7, 0.85],
    "full_steps": [8, 16, 32],
    "velocity_decay": [0.9, 0.95, 0.97],
    "correct_steps": [0, 5],
}
RESULT = {"speedup_counted": pa.float64(), "quality": pa.float64(), "warning_rate": pa.float32()}
REPORT = {"step": pa.int16(), "speedup_counted": pa.float32(), "quality": pa.float32()}
shared = {}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--to", type=Path, default=Path(__file__).parent / "data" / "points.parquet")
    options = parser.parse_args()
    torch.set_num_threads(1)
    workload = load_workload(WORKLOAD, steps=STEPS)
    warm_up(workload)
    reference = reference_run(workload, SEED, STEPS, eval_every=25)
    costs = measure_unit_costs(workload, SEED, HybridConfig(**TRAINER))
    points = [dict(zip(SPACE, values, strict=True)) for values in itertools.product(*SPACE.values())]
    began = time.monotonic()
    rows = []
    with multiprocessing.get_context("spawn").Pool(options.workers, prepare, (reference, costs)) as pool:
        for row in pool.imap(train, points, chunksize=4):
            rows.append(row)
            if len(rows) % 100 == 0:
                print(f"{len(rows)} of {len(points)} points, {time.monotonic() - began:.0f} s", flush=True)
    settings = {"velocity_decay": pa.float64(), "confidence_threshold": pa.float64()}
    columns = {name: pa.array([r[name] for r in rows], settings.get(name, pa.int16())) for name in SPACE}
    columns["state"] = pa.array([row["state"] for row in rows])
    columns |= {name: pa.array([row[name] for row in rows], kind) for name, kind in RESULT.items()}
    for name, kind in REPORT.items():
        columns[f"reports.{name}"] = pa.array([row["reports"][name] for row in rows], pa.list_(kind))
    about = {
        "workload": WORKLOAD,
        "steps": STEPS,
        "seed": SEED,
        "trainer": TRAINER,
        "space": SPACE,
        "unit_costs": costs.to_dict(),
        "step_seconds": costs.real_step,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    table = pa.table(columns).replace_schema_metadata({"hybrid_sweep": json.dumps(about)})
    options.to.parent.mkdir(exist_ok=True)
    pq.write_table(table, options.to, compression="zstd", compression_level=19)
    print(f"{options.to}: {len(rows)} points, {options.to.stat().st_size / 1024:.0f} KiB")


def prepare(reference, costs):
    """Build in each worker what all its points share."""
    torch.set_num_threads(1)
    shared.update(workload=load_workload(WORKLOAD, steps=STEPS), reference=reference, costs=costs)
    warm_up(shared["workload"])


def train(point):
    """Train one point and return its row."""
    config = HybridConfig(**TRAINER, **point)
    trial = HybridRun(shared["workload"], config, shared["reference"], shared["costs"])
    reports = []
    while not trial.done:
        reports.append(trial.report())
    result = trial.result()
    return {
        **point,
        "state": trial.state,
        **{name: result[name] for name in RESULT},
        "reports": {name: [report[name] for report in reports] for name in REPORT},
    }


if __name__ == "__main__":
    main()
