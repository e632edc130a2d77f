"""60 configurations of the MNIST perceptron trained together, against the same 60 one after the other.

    python benchmarks/packing.py [--device cuda] [--steps 400] [--repeats 3] [--data mnist]

First real steps alone (forward, backward, optimizer) at several sizes of a pack, then whole trials of
grid60 (jumps, probes, decisions, evaluation at the end of each cycle). Both sides run in one process, on one
thread of a CPU, and alternate; the ratio is taken pair by pair, of CPU time on a CPU and of wall clock on
CUDA. Above 1 packing is faster.
"""

import argparse
import statistics
import time

import torch

from hybrid_sweep.measure.batch_rounds import train_together
from hybrid_sweep.measure.batch_size import fused_ratio, packing
from hybrid_sweep.measure.costs import COST_NAMES, UnitCosts
from hybrid_sweep.measure.hybrid_run import HybridRun
from hybrid_sweep.measure.reference import reference_run
from hybrid_sweep.search.space import grid
from hybrid_sweep.spec.files import load_spec
from hybrid_sweep.trainer import HybridConfig
from trainables.mnist_mlp import MnistMlp

SIZES = (4, 16, 60)
COSTS = UnitCosts(**dict.fromkeys(COST_NAMES, 1.0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--data", default="bundled")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    workload = MnistMlp(options.data, steps=options.steps, device=options.device)
    cuda = options.device != "cpu"
    print(torch.cuda.get_device_name() if cuda else "one thread of a CPU")
    for size in SIZES:
        print(f"real steps, {size:>2} at once: {1 / fused_ratio(workload, size):5.2f}× as fast as one by one")
    print(f"--pack auto: {packing(workload, 'auto', 60).why}")

    reference = reference_run(workload, 0, options.steps, options.steps)
    spec = load_spec("grid60")
    configs = [HybridConfig(**point.config) for point in grid(spec)]

    def trials(packed: bool) -> list[HybridRun]:
        return [HybridRun(workload, config, reference, COSTS, packed=packed) for config in configs]

    def seconds(size: int) -> tuple[float, list[HybridRun]]:
        clock = time.perf_counter if cuda else time.process_time
        began, some = clock(), trials(packed=size > 1)
        if size > 1:
            train_together(some, size)
        else:
            for trial in some:
                while not trial.done:
                    trial.report()
        return clock() - began, some

    ratios: dict[int, list[float]] = {size: [] for size in SIZES}
    for _ in range(options.repeats):
        for size in SIZES:
            (one_by_one, alone), (together, packed) = seconds(1), seconds(size)
            ratios[size].append(one_by_one / together)
    for size in SIZES:
        low, high = min(ratios[size]), max(ratios[size])
        print(
            f"{len(configs)} whole trials, {size:>2} at once: {statistics.median(ratios[size]):5.2f}× "
            f"as fast as one by one ({low:.2f} to {high:.2f} in {options.repeats} pairs)"
        )
    pairs = [(a.result(), b.result()) for a, b in zip(alone, packed, strict=True)]
    same = sum(a["behaviour"] == b["behaviour"] for a, b in pairs)
    apart = max(abs(b["val_loss"] / a["val_loss"] - 1) for a, b in pairs)
    print(f"behaviour identical in {same} of {len(pairs)}; held-out losses differ by {apart:.1e} at most")


if __name__ == "__main__":
    main()
