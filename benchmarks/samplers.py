"""Does a sampler find a better front than chance? Hypervolume after 40 trials, on recorded points.

    python benchmarks/samplers.py [--seeds 100] [--few 5] [--slots 4] [--workers 2]

Every sweep goes the whole way of a real one, study, loop and journal, and only its runs are simulated, as
benchmarks/data/points.parquet holds them (benchmarks/record_points.py). Samplers are compared with random
search seed by seed; the bar is TPE's difference above 0 with its 95 % interval. The others are information:
NSGA-II's first generation of 50 is random search, and a Gaussian process thinks for seconds a point.
"""

import argparse
import json
import multiprocessing
import statistics
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
import torch

from hybrid_sweep.analysis.intervals import half_width
from hybrid_sweep.analysis.pareto import hypervolume
from hybrid_sweep.driver.loop import Loop
from hybrid_sweep.driver.recorder import Recorder
from hybrid_sweep.results import ResultsFolder
from hybrid_sweep.search.study import Study
from hybrid_sweep.simulation.backend import SimulatedBackend
from hybrid_sweep.simulation.recorded import RecordedRuns
from hybrid_sweep.spec.sweep import SweepSpec

POINTS = Path(__file__).parent / "data" / "points.parquet"
TRIALS = 40


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=100, help="of TPE and random search")
    parser.add_argument("--few", type=int, default=5, help="seeds of the other samplers, for information")
    parser.add_argument("--slots", type=int, default=4)
    parser.add_argument("--workers", type=int, default=2, help="processes of this benchmark")
    options = parser.parse_args()
    table = pq.read_table(POINTS).to_pandas()
    best = hypervolume(table.assign(trial_id=table.index.map(str)), x="speedup_counted")
    print(f"{len(table)} recorded points; hypervolume of all of them {best:.4f}")
    jobs = [("random", seed) for seed in range(options.seeds)]
    jobs += [("tpe", seed) for seed in range(options.seeds)]
    jobs += [(sampler, seed) for sampler in ("nsga2", "gp") for seed in range(options.few)]
    found = {}
    with multiprocessing.get_context("spawn").Pool(options.workers) as pool:
        for sampler, seed, value in pool.imap(partial(sweep, slots=options.slots), jobs, chunksize=2):
            found.setdefault(sampler, {})[seed] = value
    for sampler, values in found.items():
        mean = statistics.fmean(values.values())
        print(f"{sampler:<7} {TRIALS} trials, {len(values)} seeds: {mean:.4f} ({mean / best:.0%} of all)")
    for sampler, values in found.items():
        if sampler != "random":
            differences = [value - found["random"][seed] for seed, value in values.items()]
            mean, half = statistics.fmean(differences), half_width(differences)
            above = "above 0" if mean - half > 0 else "not above 0"
            print(f"{sampler:<7} - random: {mean:+.4f} [{mean - half:+.4f}, {mean + half:+.4f}] {above}")


def sweep(job, slots):
    """Return sampler, seed and the hypervolume that a sweep ends with."""
    sampler, seed = job
    torch.set_num_threads(1)  # the Gaussian process is in torch
    about = json.loads(pq.read_schema(POINTS).metadata[b"hybrid_sweep"])
    spec = SweepSpec(
        name="samplers",
        workload=about["workload"],
        space=about["space"],
        trainer=about["trainer"],
        sampler=sampler,
        trials=TRIALS,
        seed=seed,
        timing="counted",
        mask=None,
    )
    recorded = RecordedRuns.from_parquet(POINTS)

    def outcome(run):
        """Return what was recorded, with the one seed that there is; its last report is enough here."""
        plan = recorded(replace(run, seed=about["seed"]))
        return replace(plan, reports=plan.reports[-1:])

    with tempfile.TemporaryDirectory() as scratch:
        folder = ResultsFolder.create(Path(scratch) / "sweep")
        study = Study(spec, f"{sampler}{seed}", about["steps"])
        recorder = Recorder(folder, lambda event: None)
        Loop(study, SimulatedBackend(outcome, slots), recorder, spec.seeds, spec.max_retries).run()
        trials = folder.trials()
    assert len(trials) == TRIALS
    return sampler, seed, hypervolume(trials, x="speedup_counted")


if __name__ == "__main__":
    main()
