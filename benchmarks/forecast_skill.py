"""Whether confidence and forecast are worth anything, on seeds that nothing was chosen on.

    python benchmarks/forecast_skill.py [--seeds 5] [--data bundled]

Two skills, each 1 for perfect and 0 for no better than the simple forecast beside it, over shipped workloads
and horizons: mean and 95 % interval over seeds (Student's t). Confidence: Brier score against always
forecasting the share confirmed so far. Forecast of losses: squared relative error against the last smoothed
loss. "first" is the same of the first loss measured after each jump alone, which has shown nothing yet.
"""

import argparse

import torch
from interval import interval

from hybrid_sweep.trainer import HybridConfig, HybridTrainer
from hybrid_sweep.trainer.planner import JumpPlanner
from hybrid_sweep.trainer.skill import Skill, relative_error
from trainables.mnist_mlp import MnistMlp
from trainables.regression import Regression

FIRST_SEED = 10
HORIZONS = {
    "H = 25": {"max_predict_steps": 25},
    "H = 75, I = 15": {"max_predict_steps": 75, "correction_interval": 15},
    "H = 100": {"max_predict_steps": 100},
}


class Watched(HybridTrainer):
    """A trainer that scores the first forecast of each jump by itself too."""

    def watch(self) -> Skill:
        """Start; return what fills up as training goes on."""
        first, planner, seen = Skill(), self.planner, [0]
        score = planner.score

        def scored(step: int, ahead: int, actual: float) -> float:
            simple = planner.level
            predicted = score(step, ahead, actual)
            if step - ahead != seen[0]:
                seen[0] = step - ahead  # the newest real step
                first.add(relative_error(predicted, actual), relative_error(simple, actual))
                first.end_jump()
            return predicted

        setattr(planner, JumpPlanner.score.__name__, scored)
        return first


def skills(workload: MnistMlp | Regression, config: HybridConfig, seed: int) -> tuple[float, float, float]:
    """Return the skill of confidence, of the forecast, and of its first loss after each jump, in a run."""
    model = workload.build_model(seed)
    optimizer = workload.build_optimizer(model)
    scheduler = workload.build_scheduler(optimizer) if isinstance(workload, Regression) else None
    trainer = Watched(model, optimizer, config, loss_fn=workload.loss, lr_scheduler=scheduler)
    first = trainer.watch()
    told = trainer.run(lambda step: workload.batch(seed, step), workload.steps)
    return told.confidence_skill.value, told.forecast_skill.value, first.interval().value


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="bundled")
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    base, digits = HybridConfig(confidence_threshold=0.6), MnistMlp(data=options.data)
    runs = {f"{options.data} digits, {name}": (digits, base.replace(**at)) for name, at in HORIZONS.items()}
    runs["regression, H = 30, K = 10"] = Regression(), base.replace(max_predict_steps=30, full_steps=10)
    for name, (workload, config) in runs.items():
        seeds = range(FIRST_SEED, FIRST_SEED + options.seeds)
        rows = zip(*(skills(workload, config, seed) for seed in seeds), strict=True)
        for what, values in zip(("confidence", "forecast", "forecast, first"), rows, strict=True):
            print(f"{name:<30} {what:<16} {interval(values)}", flush=True)


if __name__ == "__main__":
    main()
