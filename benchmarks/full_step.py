"""What our plain step is to a hand-written one, what the trainer adds to it, and what a Predict phase costs.

    python benchmarks/full_step.py

Blocks of a hand-written PyTorch loop, of the step that references and controls take, and of the trainer with
a gate that its confidence does not reach (it learns all the same) take turns in one process on one thread, on
the bundled digits, in every order as often as in any other. So are the models made, fresh ones every few
blocks: where a model lies in memory makes it faster or slower. Ratios are taken block by block: a machine
that slows down slows all of them.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from itertools import cycle, islice, permutations
from typing import Any, NamedTuple

import torch
from interval import interval

from hybrid_sweep.trainer import HybridConfig, HybridTrainer
from hybrid_sweep.trainer.forecast.confidence import CEILING
from hybrid_sweep.trainer.train_step import TrainStep
from trainables.mnist_mlp import MnistMlp

BLOCK, BLOCKS, MODELS, PHASES = 100, 6, 36, 60
ORDERS = tuple(permutations(range(3)))


def main() -> None:
    torch.set_num_threads(1)
    workload = MnistMlp()
    batches = [workload.batch(0, step) for step in range(1, 1 + BLOCK)]
    pairs = [compare(workload, batches, order) for order in islice(cycle(ORDERS), MODELS)]
    blocks = [block for measured, _ in pairs for block in measured]
    ratios = statistics.quantiles((block.hybrid / block.plain for block in blocks), n=4)
    step = statistics.median(block.plain for block in blocks) / BLOCK
    median = f"median of {len(blocks)} blocks of {BLOCK}"
    print(f"plain step                        {1e3 * step:.2f} ms ({median})")
    models = [statistics.fmean(block.plain / block.own_plain for block in measured) for measured, _ in pairs]
    over = f"95 % interval over {len(models)} models"  # blocks of one model are alike
    print(f"hand-written / our plain step     {interval(models)} ({over})")
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
    own_plain: float
    hybrid: float
    own: dict[str, float]


def compare(workload: MnistMlp, batches: list[Any], made: Sequence[int]) -> tuple[list[Block], bool]:
    """Train models `made` in this order in turns; return the blocks, and whether they end up the same."""
    models = {arm: workload.build_model(0) for arm in made}
    plain_model, own_model, hybrid_model = (models[arm] for arm in range(3))
    optimizer = workload.build_optimizer(plain_model)
    own_step = TrainStep(own_model, workload.build_optimizer(own_model), workload.loss)
    trainer = HybridTrainer(
        hybrid_model,
        workload.build_optimizer(hybrid_model),
        HybridConfig(confidence_threshold=CEILING),
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

    def own_block() -> float:
        began = time.perf_counter()
        for batch in batches:
            own_step(batch).item()
        return time.perf_counter() - began

    def hybrid_block() -> float:
        began = time.perf_counter()
        for batch in batches:
            trainer.step(batch)
        return time.perf_counter() - began

    arms: list[Callable[[], float]] = [plain_block, own_block, hybrid_block]
    for block in arms:
        block()
    blocks = []
    for order in islice(cycle(ORDERS), BLOCKS):
        before = trainer.meter.seconds()
        took = {arm: arms[arm]() for arm in order}
        after = trainer.meter.seconds()
        own = {kind: after[kind] - before[kind] for kind in before}
        blocks.append(Block(took[0], took[1], took[2], own))
    trained = zip(*(model.parameters() for model in (plain_model, own_model, hybrid_model)), strict=True)
    return blocks, all(torch.equal(a, b) and torch.equal(a, c) for a, b, c in trained)


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
    phase = (seconds["checkpoint"] + seconds["jump"]) / calls["jump"]
    print(
        f"75-step Predict phase             {phase / plain_step:.2f} plain steps (mean of {calls['jump']}), "
        f"and {seconds['update'] / calls['update'] / plain_step:.2f} for learning before it"
    )


if __name__ == "__main__":
    main()
