"""What the trainer adds to a real step, and what a whole Predict phase costs, in plain steps.

    python benchmarks/full_step.py

Blocks of a hand-written PyTorch loop and of the trainer with a shut gate alternate in one process on one
thread, on the bundled digits, with fresh models every few blocks: where a model lies in memory makes it
faster or slower. The ratio is taken block by block: a machine that slows down slows both.
"""

import statistics
import time
from typing import Any, NamedTuple

import torch

from hybrid_sweep.trainer import HybridConfig, HybridTrainer
from trainables.mnist_mlp import MnistMlp

BLOCK, BLOCKS, MODELS, PHASES = 100, 6, 12, 60


def main() -> None:
    torch.set_num_threads(1)
    workload = MnistMlp()
    batches = [workload.batch(0, step) for step in range(1, 1 + BLOCK)]
    pairs = [compare(workload, batches) for _ in range(MODELS)]
    blocks = [block for measured, _ in pairs for block in measured]
    ratios = statistics.quantiles((block.hybrid / block.plain for block in blocks), n=4)
    step = statistics.median(block.plain for block in blocks) / BLOCK
    median = f"median of {len(blocks)} blocks of {BLOCK}"
    print(f"plain step                        {1e3 * step:.2f} ms ({median})")
    print(
        f"real step of the trainer / plain  {ratios[1]:.3f} "
        f"(quartiles {ratios[0]:.3f} to {ratios[2]:.3f}), everything included"
    )
    for kind in ("observe", "update"):
        share = statistics.median(block.own[kind] / block.plain for block in blocks)
        print(f"  of which {kind:<8}               {share:.3f}")
    print(f"weights bit-identical to plain    {all(same for _, same in pairs)}")
    predict_phases(workload, step)


class Block(NamedTuple):
    """Seconds of as many steps each way, and of the trainer's own work in them."""

    plain: float
    hybrid: float
    own: dict[str, float]


def compare(workload: MnistMlp, batches: list[Any]) -> tuple[list[Block], bool]:
    """Train a fresh pair of models in turns; return the blocks, and whether the models end up the same."""
    blocks = []
    plain_model, hybrid_model = workload.build_model(0), workload.build_model(0)
    optimizer = workload.build_optimizer(plain_model)
    trainer = HybridTrainer(
        hybrid_model,
        workload.build_optimizer(hybrid_model),
        HybridConfig(confidence_threshold=0.999),
        loss_fn=workload.loss,
    )

    def plain_block() -> float:
        began = time.perf_counter()
        for batch in batches:
            optimizer.zero_grad()
            loss = workload.loss(plain_model, batch)
            loss.backward()
            optimizer.step()
            loss.item()
        return time.perf_counter() - began

    def hybrid_block() -> float:
        began = time.perf_counter()
        for batch in batches:
            trainer.step(batch)
        return time.perf_counter() - began

    plain_block(), hybrid_block()
    for _ in range(BLOCKS):
        before = trainer.meter.seconds()
        plain, hybrid = plain_block(), hybrid_block()
        after = trainer.meter.seconds()
        blocks.append(Block(plain, hybrid, {kind: after[kind] - before[kind] for kind in before}))
    pairs = zip(plain_model.parameters(), hybrid_model.parameters(), strict=True)
    return blocks, all(torch.equal(a, b) for a, b in pairs)


def predict_phases(workload: MnistMlp, plain_step: float) -> None:
    """Time whole Predict phases of 75 steps, I = 0, from the decision to the last predicted step."""
    model = workload.build_model(0)
    config = HybridConfig(
        warmup_steps=20,
        max_predict_steps=75,
        horizon_rule="fixed",
        confidence_threshold=0.001,
        minimum_cosine=-1,
    )
    trainer = HybridTrainer(model, workload.build_optimizer(model), config, loss_fn=workload.loss)
    for _ in range(PHASES):
        trainer.run_cycle(lambda step: workload.batch(0, step), 10**9)
    seconds, calls = trainer.meter.seconds(), trainer.meter.calls
    phase = seconds["jump"] / calls["jump"]
    print(
        f"75-step Predict phase             {phase / plain_step:.2f} plain steps (mean of {calls['jump']}), "
        f"and {seconds['update'] / calls['update'] / plain_step:.2f} for learning before it"
    )


if __name__ == "__main__":
    main()
