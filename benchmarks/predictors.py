"""What each predictor is worth on this workload, over seeds: is it the prediction, or just the jump?

    python benchmarks/predictors.py [--data bundled] [--seeds 5] [--momentum 0] [--horizon 100] [--gates off]

Every predictor at the default setting, with H = 100 and threshold 0.6 as benchmarks/ablations.py has it: mean
and 95 % interval of quality (validation), of quality against plain training of as many backward passes, of
backward passes left out, and of speedup at unit costs measured once for each predictor: for those the machine
must be quiet. `random`, `sign_flipped` and `shuffled` jump as far as `ema`, but elsewhere; `oracle` trains
what it predicts and so bounds the quality that prediction could reach.
"""

import argparse

import torch
from interval import interval

from hybrid_sweep.errors import UserError
from hybrid_sweep.measure.costs import measure_unit_costs
from hybrid_sweep.measure.hybrid_run import HybridRun
from hybrid_sweep.measure.reference import reference_run
from hybrid_sweep.trainer import HybridConfig
from hybrid_sweep.trainer.predictors import PREDICTORS
from trainables.mnist_mlp import MnistMlp

COLUMNS = {
    "quality": "quality",
    "against as many backward passes": "quality_vs_truncated",
    "backward passes left out, %": "backward_reduction_pct",
    "counted speedup": "speedup_counted",
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="bundled", help="bundled, mnist, or a folder of IDX files")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--momentum", type=float, default=0.0, help="of SGD; optimizer_replay needs some")
    parser.add_argument("--horizon", type=int, default=100, help="H, logical steps")
    parser.add_argument("--gates", default="learned", choices=["learned", "original", "off"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    workload = MnistMlp(data=options.data, momentum=options.momentum)
    base = HybridConfig(max_predict_steps=options.horizon, confidence_threshold=0.6, gates=options.gates)
    references = [reference_run(workload, seed, workload.steps, 25) for seed in range(options.seeds)]
    for name in PREDICTORS:
        config = base.replace(predictor=name)
        try:
            costs = measure_unit_costs(workload, 0, config)
        except UserError as error:
            print(f"{name:<18} {error}", flush=True)
            continue
        results, diverged = [], 0
        for reference in references:
            trial = HybridRun(workload, config, reference, costs)
            while not trial.done:
                trial.report()
            results.append(trial.result())
            diverged += trial.state == "diverged"
        print(f"{name:<18} diverged {diverged} of {len(results)}")
        for title, column in COLUMNS.items():
            print(f"{'':<18} {title:<32} {interval([r[column] for r in results])}", flush=True)


if __name__ == "__main__":
    main()
