"""What each idea of the trainer is worth on this workload, over seeds: micro-corrections, gates, directions.

    python benchmarks/ablations.py [--data bundled] [--seeds 5]

Each row is one setting changed from H = 100, I = 0: mean and 95 % interval of quality (validation), and of
speedup at unit costs measured once. Quality above 1 is better than plain training at the same logical step.
"""

import argparse

import torch
from interval import interval

from hybrid_sweep.measure.costs import measure_unit_costs
from hybrid_sweep.measure.hybrid_run import HybridRun
from hybrid_sweep.measure.reference import reference_run
from hybrid_sweep.trainer import HybridConfig
from trainables.mnist_mlp import MnistMlp

BASE = HybridConfig(max_predict_steps=100, confidence_threshold=0.6)
ROWS = {
    "base": {},
    "micro-corrections, I = 15": {"correction_interval": 15},
    "gates off": {"gates": "off"},
    "gates taught the realised ratio (seed)": {"gates": "original"},
    "momentum of whole Full phases": {"predictor": "outer_momentum"},
    "velocity decay 0.9": {"velocity_decay": 0.9},
    "zero displacement": {"predictor": "frozen"},
    "no Correct phase": {"correct_steps": 0},
    "cycle mode rust": {"cycle_mode": "chained"},
    "literal divergence rule": {"divergence_rule": "original"},
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="bundled")
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    workload = MnistMlp(data=options.data)
    costs = measure_unit_costs(workload, 0, BASE)
    references = [reference_run(workload, seed, workload.steps, 25) for seed in range(options.seeds)]
    for name, changes in ROWS.items():
        results = []
        for reference in references:
            trial = HybridRun(workload, BASE.replace(**changes), reference, costs)
            while not trial.done:
                trial.report()
            results.append(trial.result())
        print(
            f"{name:<40} quality {interval([r['quality'] for r in results])}\n"
            f"{'':<40} speedup {interval([r['speedup_counted'] for r in results])}",
            flush=True,
        )


if __name__ == "__main__":
    main()
