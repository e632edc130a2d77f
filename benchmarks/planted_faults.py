"""Plant faults in real runs of the trainer, and count how many its monitor finds, and false alarms.

    python benchmarks/planted_faults.py [--runs 12] [--setting quick]

Each fault begins at one of three steps of a run of 400 on the bundled digits and lasts. It is found where its
signal fires within 20 observed real steps. Faults of gradients are planted as a user's would be: by hooks on
the parameters, by a loss that is scaled in its gradient alone, and by one that is scaled as a whole. The
settings are a gate that never opens, those of search_spaces/quick.yaml, and the original's aggressive preset,
each with clipping and without. False alarms are counted in the same runs without a fault.
"""

import argparse
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from hybrid_sweep.trainer import PRESETS, DivergenceLevel, HybridConfig, HybridTrainer, TrainingDiverged
from trainables.mnist_mlp import MnistMlp

STEPS, ONSETS, PATIENCE = 400, (120, 240, 360), 20
QUICK = HybridConfig(
    warmup_steps=50, full_steps=20, max_predict_steps=75, correction_interval=15, confidence_threshold=0.6
)
SETTINGS = {
    "shut gate": HybridConfig(confidence_threshold=0.999),
    "quick": QUICK,
    "aggressive": PRESETS["aggressive"],
}
NOISE = 0.25
"""Standard deviation of the digits' batch losses around their trend, relative to it, late in such a run."""


class Fault:
    """What is wrong from `onset` on: of a loss, `of_loss(loss, step)`, or of each parameter's gradient."""

    def __init__(
        self,
        signal: str,
        of_loss: Callable[[Tensor, int], Tensor] = lambda loss, step: loss,
        of_gradient: float = 1.0,
    ) -> None:
        self.signal, self.of_loss, self.of_gradient = signal, of_loss, of_gradient


def with_gradient(factor: float) -> Callable[[Tensor, int], Tensor]:
    """Return a loss of the same value whose gradient is multiplied."""
    return lambda loss, step: loss.detach() + factor * (loss - loss.detach())


FAULTS = {
    "explosion, hooks": Fault("gradient_explosion", of_gradient=100.0),
    "explosion, gradient of the loss": Fault("gradient_explosion", with_gradient(100.0)),
    "explosion, scaled loss": Fault("gradient_explosion", lambda loss, step: 100 * loss),
    "vanishing, hooks": Fault("gradient_vanishing", of_gradient=0.001),
    "vanishing, gradient of the loss": Fault("gradient_vanishing", with_gradient(0.001)),
    "vanishing, scaled loss": Fault("gradient_vanishing", lambda loss, step: 0.001 * loss),
    "loss higher by 4 sigma": Fault("loss_deviation", lambda loss, step: loss + 4 * NOISE * loss.detach()),
    "loss swings by 4 sigma": Fault(
        "loss_oscillation", lambda loss, step: loss + (-1) ** step * 4 * NOISE * loss.detach()
    ),
    "NaN": Fault("non_finite", lambda loss, step: loss * math.nan),
    "half off the prediction": Fault("prediction_error", lambda loss, step: 2 * loss),
}


def watched(
    workload: Any, seed: int, config: HybridConfig, fault: Fault | None, onset: int, clip: float | None
) -> Iterator[tuple[int, bool, Any]]:
    """Train with a fault from `onset` on; yield each measured step, whether it was real, and its signal.

    With a gate that never opens, steps are real ones; a run that is declared diverged ends.
    """
    model, now = workload.build_model(seed), [0]

    def wrong(step: int) -> bool:
        return fault is not None and step >= onset

    def loss_of(model: nn.Module, batch: Any) -> Tensor:
        loss: Tensor = workload.loss(model, batch)
        return fault.of_loss(loss, now[0]) if fault and wrong(now[0]) else loss

    def hook(gradient: Tensor) -> Tensor:
        return gradient * fault.of_gradient if fault and wrong(now[0]) else gradient

    for p in model.parameters():
        p.register_hook(hook)
    trainer = HybridTrainer(
        model, workload.build_optimizer(model), config, loss_fn=loss_of, max_grad_norm=clip
    )
    trainer.controller.total_steps = STEPS
    for step in range(1, STEPS + 1):
        now[0] = step
        try:
            result = trainer.step(workload.batch(seed, step))
        except TrainingDiverged:
            return
        if result.signal is not None:
            yield step, result.phase.is_real, result.signal


def found(signals: Iterable[tuple[int, bool, Any]], name: str, onset: int) -> bool:
    """Return whether the signal fires within 20 observed real steps from `onset` on."""
    real = 0
    for step, is_real, signal in signals:
        if step >= onset:
            real += is_real
            if real > PATIENCE:
                return False
            if signal.name == name:
                return True
    return False


def false_alarms(signals: Iterable[tuple[int, bool, Any]]) -> tuple[int, int]:
    """Return the measured steps with a warning or worse, and all of them."""
    levels = [signal.level >= DivergenceLevel.WARNING for _, _, signal in signals]
    return sum(levels), len(levels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=12, help="seeds of each fault and onset (12: 36 runs)")
    parser.add_argument("--setting", choices=SETTINGS, help="this one alone")
    asked = parser.parse_args()
    runs = asked.runs
    torch.set_num_threads(1)
    workload = MnistMlp(lr=0.01)
    for clip in (None, 1.0):
        for setting, config in SETTINGS.items():
            if setting != (asked.setting or setting):
                continue
            print(f"{setting}, max_grad_norm={clip}")
            counts = [
                false_alarms(watched(workload, seed, config, None, 0, clip)) for seed in range(3 * runs)
            ]
            alarms, steps = (sum(column) for column in zip(*counts, strict=True))
            print(f"  {'no fault':<34} {1000 * alarms / steps:.2f} false alarms per 1,000 of {steps} steps")
            for name, fault in FAULTS.items():
                if fault.signal == "prediction_error" and setting == "shut gate":
                    continue  # where nothing is predicted
                hits = sum(
                    found(watched(workload, seed, config, fault, onset, clip), fault.signal, onset)
                    for seed in range(runs)
                    for onset in ONSETS
                )
                print(f"  {name:<34} {hits:>3} of {3 * runs} found", flush=True)


if __name__ == "__main__":
    main()
