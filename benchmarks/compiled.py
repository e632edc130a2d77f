"""A plain step with its loss compiled against the same step uncompiled, for two models on the bundled digits.

    python benchmarks/compiled.py

Blocks of both alternate in one process, on one thread of a CPU or on CUDA where there is one (there with CUDA
graphs too); fresh models every few blocks. The ratio is taken block by block, of CPU time on a CPU and of
wall clock on CUDA. What compiling takes is told beside it: a worker pays it once, before anything is timed.
"""

import statistics
import time

import torch
import torch.nn.functional as F
from torch import nn

from hybrid_sweep.measure.compiled import compiled
from hybrid_sweep.measure.reference import start
from hybrid_sweep.measure.workload_builder import warm_up
from hybrid_sweep.trainer.train_step import TrainStep
from hybrid_sweep.workload import Workload
from trainables.mnist_mlp import MnistMlp

BLOCK, BLOCKS, MODELS = 50, 6, 10


class Cnn(MnistMlp):
    """Two convolutions, and the rest of `MnistMlp`."""

    def build_model(self, seed: int) -> nn.Module:
        torch.manual_seed(seed)
        layers = [nn.Conv2d(1, 8, 5, 2), nn.ReLU(), nn.Conv2d(8, 16, 5, 2), nn.ReLU(), nn.Flatten()]
        model = nn.Sequential(nn.Unflatten(1, (1, 28, 28)), *layers, nn.Linear(256, 10))
        return model.to(self.recipe.device)

    def loss(self, model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return F.cross_entropy(model(batch[0]), batch[1])


def main() -> None:
    torch.set_num_threads(1)
    cuda = torch.cuda.is_available()
    print(torch.cuda.get_device_name() if cuda else "one thread of a CPU")
    for build in (MnistMlp, Cnn):
        for mode in ("default", "reduce-overhead") if cuda else ("default",):
            workload = build(device="cuda" if cuda else "cpu")
            warm_up(workload)
            began = time.perf_counter()
            other = compiled(workload, mode, warm_up)
            seconds = time.perf_counter() - began
            pairs = [pair for seed in range(MODELS) for pair in blocks(workload, other, seed)]
            low, median, high = statistics.quantiles((own / plain for plain, own in pairs), n=4)
            step = 1e3 * statistics.median(plain for plain, _ in pairs) / BLOCK
            print(
                f"{build.__name__}, {mode}: {median:.3f} of the uncompiled step of {step:.2f} ms "
                f"(quartiles {low:.3f} to {high:.3f}, {len(pairs)} blocks of {BLOCK}); "
                f"compiled in {seconds:.0f} s"
            )


def blocks(workload: Workload, other: Workload, seed: int) -> list[tuple[float, float]]:
    """Return seconds of blocks of steps, uncompiled and compiled, each on a fresh model."""
    batches = [workload.batch(seed, step) for step in range(1, 1 + BLOCK)]
    plain, own = start(workload, seed), start(other, seed)

    clock = time.perf_counter if plain.parameters[0].is_cuda else time.process_time

    def block(step: TrainStep) -> float:
        began = clock()
        for batch in batches:
            float(step(batch))
        return clock() - began

    block(plain), block(own)
    return [(block(plain), block(own)) for _ in range(BLOCKS)]


if __name__ == "__main__":
    main()
