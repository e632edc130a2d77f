"""Whether a trial's speedups are what a clock around the loops says, whatever a batch costs.

    python benchmarks/stopwatch.py [gate] [clock] [--steps 300] [--repeats 3]

`gate`: a gate that never opens, with batches that cost 0, 1 and 3 plain steps; its speedup is 1 but for what
the trainer adds. `clock`: trials that jump beside a hand-written loop of N plain steps, both timed by a clock
of our own. Trial and loop take turns, a cycle and as many logical steps, so that a busy machine slows both.
"""

import argparse
import time
from statistics import median

import torch
import torch.nn.functional as F
from torch import nn

from hybrid_sweep.measure.costs import UnitCosts, measure_unit_costs
from hybrid_sweep.measure.hybrid_run import HybridRun
from hybrid_sweep.measure.reference import reference_run, start
from hybrid_sweep.trainer import HybridConfig
from trainables.mnist_mlp import MnistMlp

SHUT = HybridConfig(confidence_threshold=0.999)
OPEN = HybridConfig(warmup_steps=30, max_predict_steps=40, confidence_threshold=0.3, correction_interval=20)


class Digits(MnistMlp):
    """The shipped workload; loading a batch takes `batch_seconds` more, as decoding images does."""

    batch_seconds = 0.0

    def batch(self, seed, step):
        """Return the batch of a step."""
        end = time.perf_counter() + self.batch_seconds
        while time.perf_counter() < end:
            pass
        return super().batch(seed, step)


class Wide(Digits):
    """A perceptron of 1.9 million parameters, whose step takes several ms."""

    def build_model(self, seed):
        """Return the model."""
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Linear(784, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 10)
        )


class ResNet(Digits):
    """A residual network with BatchNorm, trained with momentum and a cosine schedule."""

    def build_model(self, seed):
        """Return the model."""
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Unflatten(1, (1, 28, 28)), Block(1, 8), Block(8, 16), nn.Flatten(), nn.Linear(16 * 49, 10)
        )

    def build_optimizer(self, model):
        """Return SGD with momentum."""
        return torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)

    def build_scheduler(self, optimizer):
        """Return a schedule that ends with the run."""
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.steps)


class Block(nn.Module):
    """Two convolutions beside one, and half the picture."""

    def __init__(self, channels, out):
        super().__init__()
        self.one, self.two = nn.Conv2d(channels, out, 3, 2, 1), nn.Conv2d(out, out, 3, 1, 1)
        self.beside, self.norm = nn.Conv2d(channels, out, 1, 2), nn.BatchNorm2d(out)

    def forward(self, x):
        """Return pictures [n, out, h / 2, w / 2]."""
        return F.relu(self.two(F.relu(self.norm(self.one(x)))) + self.beside(x))


class Gpt:
    """A transformer of two layers that learns to continue arithmetic sequences modulo 31, with AdamW."""

    quality, tokens, length = "loss_ratio", 31, 32

    def __init__(self, steps):
        self.steps = steps

    def build_model(self, seed):
        """Return the model."""
        torch.manual_seed(seed)
        layer = nn.TransformerEncoderLayer(64, 4, 128, dropout=0.0, batch_first=True, norm_first=True)
        body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        return nn.ModuleList([nn.Embedding(self.tokens, 64), body, nn.Linear(64, self.tokens)])

    def build_optimizer(self, model):
        """Return AdamW."""
        return torch.optim.AdamW(model.parameters(), lr=1e-3)

    def batch(self, seed, step):
        """Return sequences [16, 33]."""
        generator = torch.Generator().manual_seed(1_000_003 * seed + step)
        first, stride = torch.randint(self.tokens, (2, 16, 1), generator=generator)
        return (first + stride * torch.arange(self.length + 1)) % self.tokens

    def loss(self, model, batch):
        """Return the cross entropy of the next token, in nats."""
        embed, body, head = model
        mask = nn.Transformer.generate_square_subsequent_mask(self.length)
        scores = head(body(embed(batch[:, :-1]), mask=mask, is_causal=True))
        return F.cross_entropy(scores.flatten(0, 1), batch[:, 1:].flatten())

    def evaluate(self, model, split):
        """Return the loss on batches of their own."""
        with torch.no_grad():
            return {"loss": self.loss(model, self.batch(10**6 + (split == "test"), 1)).item()}


def run(workload, config, costs: UnitCosts, seed: int) -> tuple[dict, float, float]:
    """Run a trial and a loop of N plain steps in turns; return the trial's columns, and loop / trial.

    The ratio comes by the wall clock and by the thread's CPU time, which a busy machine leaves alone.
    """
    steps = workload.steps
    trial = HybridRun(
        workload, config, reference_run(workload, seed, steps, steps), costs, report_every=steps
    )
    plain, step = start(workload, seed), 0
    loop, hybrid = Watch(), Watch()
    while step < steps:
        with hybrid:
            trial.trainer.run_cycle(lambda at: workload.batch(seed, at), steps)
        with loop:
            while step < trial.trainer.tally.steps:
                step += 1
                batch = workload.batch(seed, step)
                plain.optimizer.zero_grad()
                loss = workload.loss(plain.model, batch)
                loss.backward()
                plain.optimizer.step()
                if plain.scheduler is not None:
                    plain.scheduler.step()
                loss.item()
    trial.report()  # evaluates, and nothing else is left
    return trial.result(), loop.wall / hybrid.wall, loop.cpu / hybrid.cpu


class Watch:
    """Adds up the seconds that pass within `with`."""

    wall = cpu = 0.0

    def __enter__(self):
        """Begin."""
        self._began = time.perf_counter(), time.thread_time()

    def __exit__(self, *error):
        """End."""
        self.wall += time.perf_counter() - self._began[0]
        self.cpu += time.thread_time() - self._began[1]


def step_seconds(workload) -> float:
    """Return the median time of a plain step with its batch."""
    plain, times = start(workload, 0), []
    for step in range(1, 61):
        began = time.perf_counter()
        plain(workload.batch(0, step))
        times.append(time.perf_counter() - began)
    return median(times[10:])


def gate(steps: int, repeats: int) -> None:
    """Print the speedups of a gate that never opens."""
    print("a gate that never opens     batch costs  speedup (cpu)  counted  clock (cpu)   loading  own work")
    for name, make in (("784-256-128-10", Digits), ("784-1024-1024-10", Wide)):
        workload = make(steps=steps)
        each = step_seconds(workload)
        for cost in (0, 1, 3):
            workload.batch_seconds = cost * each
            costs = measure_unit_costs(workload, 0, SHUT)
            found = [run(workload, SHUT, costs, seed) for seed in range(repeats)]

            def middle(column, found=found):
                return median(result[column] for result, *_ in found)

            print(
                f"  {name:<18} {1e3 * each:4.1f} ms {cost:>6} steps  {middle('speedup'):6.3f} "
                f"({middle('speedup_cpu'):5.3f})  {middle('speedup_counted'):7.3f}  "
                f"{median(wall for _, wall, _ in found):5.3f} ({median(cpu for *_, cpu in found):5.3f})  "
                f"{middle('loading_share'):7.2f}  {middle('overhead_pct'):6.1f} %",
                flush=True,
            )


def clock(steps: int, repeats: int) -> None:
    """Print the speedups of trials that jump beside those of our own clock."""
    print("trials that jump                speedup  counted  bound  speedup / clock  by CPU time")
    slow = Digits(steps=steps)
    slow.batch_seconds = 2 * step_seconds(slow)
    workloads = {
        "batches of two steps": slow,
        "digits": Digits(steps=steps),
        "GPT": Gpt(steps),
        "ResNet": ResNet(steps=steps),
    }
    for name, workload in workloads.items():
        costs = measure_unit_costs(workload, 0, OPEN)
        for seed in range(repeats):
            result, wall, cpu = run(workload, OPEN, costs, seed)
            print(
                f"  {name:<22} seed {seed} {result['speedup']:7.3f}  {result['speedup_counted']:7.3f}  "
                f"{result['speedup_bound']:5.2f}  {result['speedup'] / wall:15.3f}  "
                f"{result['speedup_cpu'] / cpu:11.3f}",
                flush=True,
            )


PARTS = {"gate": gate, "clock": clock}


def main() -> None:
    """Run the parts that were asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="part", help=f"of {', '.join(PARTS)}; all by default")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(PARTS)}")
    torch.set_num_threads(1)
    for name, part in PARTS.items():
        if name in (options.parts or PARTS):
            part(options.steps, options.repeats)


if __name__ == "__main__":
    main()
