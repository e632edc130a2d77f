"""Does the best grid60 point really train three times as fast? Chosen on three seeds, reported on others.

    HYBRID_SWEEP_DATA=../shared/data hybrid-sweep run grid60 --set workload.data=mnist --repeats 3 --out DIR
    HYBRID_SWEEP_DATA=../shared/data python benchmarks/best_point.py DIR

Takes the front's fastest point with mean quality ≥ 0.98, and runs it against plain training on fresh seeds,
alone on the machine, the two arms alternating in whole runs, three of each, of which the median time counts.
Time is wall clock of training with batch loading on both sides, evaluation outside. Held-out loss is on the
test split, which no sweep touches.
"""

import argparse
import statistics
import time
from math import sqrt

import torch

from hybrid_sweep import HybridConfig, HybridTrainer, load_results
from hybrid_sweep.analysis.summary import best_point
from hybrid_sweep.cluster.work import warm_up
from hybrid_sweep.measure.reference import start
from hybrid_sweep.workload import load_workload

TIMINGS = 3
T_95 = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 8: 2.36, 10: 2.26}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", help="results of the sweep that chooses")
    parser.add_argument("--seeds", type=int, default=3, help="fresh seeds to report on")
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = load_results(options.folder)
    point = best_point(results.pareto, 0.98)
    config = HybridConfig(**results.folder.trial_config(point["trial_id"]))
    keywords = dict(results.manifest["spec"]["workload"])
    workload = load_workload(keywords.pop("name"), **keywords)
    steps = results.manifest["spec"]["steps"] or workload.steps
    first = max(results.manifest["seeds"]) + 1
    warm_up(workload)
    print(
        f"{point['trial_id']}, chosen on seeds {point['seed']}: "
        f"speedup {point['speedup']:.2f}, quality {point['quality']:.4f} (validation)"
    )
    rows = []
    for seed in range(first, first + options.seeds):
        runs = []
        for _ in range(TIMINGS):
            hybrid, hybrid_loss, backward = hybrid_arm(workload, seed, steps, config)
            plain, plain_loss, truncated_loss = plain_arm(workload, seed, steps, backward)
            runs.append((hybrid, plain))
        hybrid, plain = (statistics.median(times) for times in zip(*runs, strict=True))
        rows.append((plain / hybrid, plain_loss / hybrid_loss, truncated_loss / hybrid_loss))
        print(
            f"seed {seed}: plain {plain:.2f} s, hybrid {hybrid:.2f} s, wall-clock ratio {rows[-1][0]:.2f}; "
            f"test quality {rows[-1][1]:.4f}; against truncated {rows[-1][2]:.3f} ({backward} backward)"
        )
    for i, name in enumerate(("wall-clock ratio", "test quality", "against truncated")):
        print(f"{name:<18} {interval([row[i] for row in rows])}")


def hybrid_arm(workload, seed, steps, config):
    plain = start(workload, seed)
    trainer = HybridTrainer(
        plain.model, plain.optimizer, config, loss_fn=workload.loss, lr_scheduler=plain.scheduler
    )
    began = time.perf_counter()
    statistics = trainer.run(lambda step: workload.batch(seed, step), steps)
    seconds = time.perf_counter() - began
    return seconds, workload.evaluate(plain.model, "test")["loss"], statistics.backward_calls


def plain_arm(workload, seed, steps, backward):
    plain = start(workload, seed)
    seconds, truncated = 0.0, float("nan")
    for first, last in ((1, backward), (backward + 1, steps)):
        began = time.perf_counter()
        for step in range(first, last + 1):
            plain(workload.batch(seed, step)).item()
        seconds += time.perf_counter() - began
        if last == backward:
            truncated = workload.evaluate(plain.model, "test")["loss"]
    return seconds, workload.evaluate(plain.model, "test")["loss"], truncated


def interval(values):
    mean = statistics.fmean(values)
    if len(values) < 2:
        return f"{mean:.3f}"
    half = T_95.get(len(values), 2.0) * statistics.stdev(values) / sqrt(len(values))
    return f"{mean:.3f} [{mean - half:.3f}, {mean + half:.3f}] (95 % t interval, {len(values)} seeds)"


if __name__ == "__main__":
    main()
