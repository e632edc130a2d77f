"""What the trainer adds to a real step, and what a whole Predict phase costs, in plain steps.

    python benchmarks/full_step.py

Blocks of a hand-written PyTorch loop and of the trainer with a shut gate alternate in one process on one
thread, on the bundled digits; the ratio is taken block by block: a machine that slows down slows both.
"""

import statistics
import time

import torch

from hybrid_sweep.trainer import HybridConfig, HybridTrainer
from trainables.mnist_mlp import MnistMlp

BLOCK, BLOCKS, PHASES = 100, 40, 60


def main() -> None:
    torch.set_num_threads(1)
    workload = MnistMlp()
    plain_model, hybrid_model = workload.build_model(0), workload.build_model(0)
    optimizer = workload.build_optimizer(plain_model)
    trainer = HybridTrainer(
        hybrid_model,
        workload.build_optimizer(hybrid_model),
        HybridConfig(confidence_threshold=0.999),
        loss_fn=workload.loss,
    )
    batches = [workload.batch(0, step) for step in range(1, 1 + BLOCK)]

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
    before = trainer.meter.seconds()
    pairs = [(plain_block(), hybrid_block()) for _ in range(BLOCKS)]
    seconds = {kind: trainer.meter.seconds()[kind] - before[kind] for kind in before}
    ratios = sorted(hybrid / plain for plain, hybrid in pairs)
    step = statistics.median(plain for plain, _ in pairs) / BLOCK
    same = all(
        torch.equal(a, b) for a, b in zip(plain_model.parameters(), hybrid_model.parameters(), strict=True)
    )
    print(f"plain step                        {1e3 * step:.2f} ms (median of {BLOCKS} blocks of {BLOCK})")
    print(
        f"real step of the trainer / plain  {statistics.median(ratios):.3f} "
        f"(quartiles {ratios[BLOCKS // 4]:.3f} to {ratios[3 * BLOCKS // 4]:.3f}), everything included"
    )
    for kind in ("observe", "update"):
        print(f"  of which {kind:<8}               {seconds[kind] / (BLOCKS * BLOCK) / step:.3f}")
    print(f"weights bit-identical to plain    {same}")
    predict_phases(workload, step)


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
