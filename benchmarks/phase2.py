"""What each idea of the original's Phase 2 is worth, over seeds that no setting was chosen on.

    python benchmarks/phase2.py [bptt] [schedule] [calibration] [--data bundled] [--seeds 5]

Means with 95 % t intervals over seeds; a setting is compared with the base, seed by seed.
"""

import argparse
import timeit
from statistics import fmean

import numpy as np
import torch
from interval import interval

from hybrid_sweep.measure.costs import measure_unit_costs
from hybrid_sweep.measure.hybrid_run import HybridRun
from hybrid_sweep.measure.reference import Reference, reference_run
from hybrid_sweep.trainer import HybridConfig
from hybrid_sweep.trainer.forecast.calibration import reliability
from hybrid_sweep.trainer.forecast.dynamics import RssmLite
from hybrid_sweep.trainer.forecast.features import StepHistory
from hybrid_sweep.trainer.forecast.gru import Gru
from trainables.mnist_mlp import MnistMlp

BASE = HybridConfig(
    max_predict_steps=75, correction_interval=15, confidence_threshold=0.6, bptt_steps=3, calibration="none"
)
FIRST_SEED = 10
HORIZONS = (10, 25, 50, 75)
AROUND = 5
DEPTHS = (1, 3, 10)


class Bench:
    """A workload, its seeds, and what every comparison shares."""

    def __init__(self, workload: MnistMlp, seeds: int) -> None:
        self.workload = workload
        self.seeds = range(FIRST_SEED, FIRST_SEED + seeds)
        self.costs = measure_unit_costs(workload, FIRST_SEED, BASE)
        self.references = {seed: reference_run(workload, seed, workload.steps, 25) for seed in self.seeds}
        self.base = self.trials(BASE)

    def trials(self, config: HybridConfig) -> list[HybridRun]:
        """Run a configuration on every seed."""
        return [self._trial(config, reference) for reference in self.references.values()]

    def _trial(self, config: HybridConfig, reference: Reference) -> HybridRun:
        trial = HybridRun(self.workload, config, reference, self.costs)
        while not trial.done:
            trial.report()
        return trial

    def compare(self, name: str, trials: list[HybridRun], base: list[HybridRun]) -> None:
        """Print quality, speedup and probes, each against the base seed by seed."""
        print(f"  {name}")
        rows = [(trial.result(), other.result()) for trial, other in zip(trials, base, strict=True)]
        for column in ("quality", "speedup_counted", "micro_corrections", "realised_horizon_mean"):
            own, gain = [row[column] for row, _ in rows], [row[column] - old[column] for row, old in rows]
            print(
                f"    {column:<22} {interval(own)}\n    {'  minus the base':<22} {interval(gain)}", flush=True
            )


def bptt(bench: Bench) -> None:
    """Print the error of rolled-out losses while RSSM-lite watches plain training, and what k costs."""
    print(
        "k-step BPTT: mean |error| of rolled-out losses, % of the mean loss of the 11 steps around",
        flush=True,
    )
    errors = [_rollout_errors(bench.workload, seed) for seed in bench.seeds]
    for i, horizon in enumerate(HORIZONS):
        print(f"  {horizon} steps ahead")
        for name in errors[0]:
            print(f"    {name:<22} {interval([each[name][i] for each in errors])}")
        print(f"    {'k = 3 minus k = 1':<22} {interval([e['k = 3'][i] - e['k = 1'][i] for e in errors])}")
    cell = Gru(11, BASE.predictor_hidden_size, np.random.default_rng(0))
    inputs = np.random.default_rng(1).standard_normal((BASE.full_steps, 11)).astype(np.float32)
    trace, slopes = cell.run(inputs, np.zeros(cell.hidden, np.float32)), inputs[1:, 0]
    for k in DEPTHS:
        seconds = min(timeit.repeat(lambda k=k: cell.gradient(trace, slopes, k), number=200, repeat=9)) / 200
        share = seconds / BASE.full_steps / bench.costs.plain_step
        print(f"  k = {k}: {1e6 * seconds:.0f} µs a cycle, {100 * share:.2f} % of a Full step")
    shallow = bench.trials(BASE.replace(bptt_steps=1))
    bench.compare(f"in the trainer, k = {BASE.bptt_steps} against k = 1", bench.base, shallow)


def _rollout_errors(workload: MnistMlp, seed: int) -> dict[str, list[float]]:
    """Return each forecaster's mean relative error at every horizon, in percent, over one run."""
    losses, norms = _plain_run(workload, seed)
    smooth = np.convolve(losses, np.full(2 * AROUND + 1, 1 / (2 * AROUND + 1)), "same")
    models = {f"k = {k}": RssmLite(hidden_size=BASE.predictor_hidden_size, bptt_steps=k) for k in DEPTHS}
    history, new = StepHistory(), BASE.warmup_steps
    errors: dict[str, list[list[float]]] = {}
    for now in range(new, workload.steps - max(HORIZONS) - AROUND, BASE.full_steps):
        for step in range(now - new, now):
            history.append(step + 1, losses[step], norms[step], 0.01)
        recent = losses[now - BASE.full_steps : now]
        line = np.polynomial.Polynomial.fit(np.arange(1 - len(recent), 1), recent, 1)
        forecasts = {
            "last value": [losses[now - 1]] * len(HORIZONS),
            "smoothed last value": [history.tracker.fast] * len(HORIZONS),
            "linear trend": [line(ahead) for ahead in HORIZONS],
        }
        for name, model in models.items():
            model.train(history, new)
            rolled = model.rollout(max(HORIZONS))
            forecasts[name] = [rolled[ahead - 1] for ahead in HORIZONS]
        truth = [smooth[now + ahead - 1] for ahead in HORIZONS]
        for name, values in forecasts.items():
            row = [100 * abs(value - true) / true for value, true in zip(values, truth, strict=True)]
            errors.setdefault(name, []).append(row)
        new = BASE.full_steps
    return {name: np.mean(rows, axis=0).tolist() for name, rows in errors.items()}


def _plain_run(workload: MnistMlp, seed: int) -> tuple[list[float], list[float]]:
    """Return the training losses and gradient norms of plain training."""
    model = workload.build_model(seed)
    optimizer = workload.build_optimizer(model)
    losses, norms = [], []
    for step in range(1, workload.steps + 1):
        optimizer.zero_grad()
        loss = workload.loss(model, workload.batch(seed, step))
        loss.backward()
        norms.append(float(torch.nn.utils.get_total_norm([p.grad for p in model.parameters()])))
        optimizer.step()
        losses.append(loss.item())
    return losses, norms


def schedule(bench: Bench) -> None:
    """Print what the adaptive correction schedule does against the fixed one, and against its mean."""
    print("Adaptive correction schedule, base I = 15")
    adaptive = bench.trials(BASE.replace(correction_schedule="adaptive"))
    intervals = [
        segment.interval for trial in adaptive for segment in trial.trainer.trace() if segment.interval
    ]
    print(f"  intervals from {min(intervals)} to {max(intervals)}, mean {fmean(intervals):.1f}")
    bench.compare("adaptive against fixed I = 15", adaptive, bench.base)
    same = round(fmean(intervals))
    bench.compare(
        f"adaptive against fixed I = {same}", adaptive, bench.trials(BASE.replace(correction_interval=same))
    )


def calibration(bench: Bench) -> None:
    """Print reliability tables with and without calibration, and how high accuracy could be at all."""
    print("Calibration: a loss confirms a prediction within 10 % but for two deviations of a batch's noise")
    best = [_share_within_a_tenth(_plain_run(bench.workload, seed)[0]) for seed in bench.seeds]
    print(f"  batch losses within 10 % of the mean of the 11 around them: {interval(best)}")
    for changes in ({}, {"correction_interval": 0, "max_predict_steps": 100}):
        base = BASE.replace(**changes)
        plain = bench.trials(base) if changes else bench.base
        for kind in ("none", "binned", "isotonic"):
            trials = plain if kind == "none" else bench.trials(base.replace(calibration=kind))
            _print_reliability(
                f"H = {base.max_predict_steps}, I = {base.correction_interval}: {kind}", trials
            )
            if kind != "none":
                bench.compare(f"{kind} against none", trials, plain)


def _print_reliability(name: str, trials: list[HybridRun]) -> None:
    scores = [trial.trainer.planner.confidence.scores for trial in trials]
    results = [trial.result() for trial in trials]
    gains = [_constant_brier(each) - result["brier"] for each, result in zip(scores, results, strict=True)]
    print(f"  {name}")
    print(f"    literal accuracy       {interval([result['prediction_accuracy'] for result in results])}")
    print(f"    Brier score            {interval([result['brier'] for result in results])}")
    print(f"    better than a constant {interval(gains)}")
    errors = [result["calibration_error"] for result in results if result["calibration_error"] is not None]
    print(f"    calibration error      {interval(errors)}")
    table = reliability([pair for each in scores for pair in each])
    gap = max((abs(b.confidence - b.accuracy) for b in table if b.predictions >= 30), default=float("nan"))
    print(f"    all seeds together, largest gap {gap:.3f}: count, confidence, share confirmed")
    for each in table:
        print(f"      {each.predictions:>6}  {each.confidence:.2f}  {each.accuracy:.2f}", flush=True)


def _constant_brier(scores: list[tuple[float, bool]]) -> float:
    share = fmean(confirmed for _, confirmed in scores)
    return share * (1 - share)


def _share_within_a_tenth(losses: list[float]) -> float:
    around = np.convolve(losses, np.full(2 * AROUND + 1, 1 / (2 * AROUND + 1)), "valid")
    inner = np.array(losses[AROUND:-AROUND])
    return float((abs(inner - around) < 0.1 * np.maximum(inner, 0.1)).mean())


PARTS = {"bptt": bptt, "schedule": schedule, "calibration": calibration}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="part", help=f"of {', '.join(PARTS)}; all by default")
    parser.add_argument("--data", default="bundled")
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(PARTS)}")
    torch.set_num_threads(1)
    bench = Bench(MnistMlp(data=options.data), options.seeds)
    for name, part in PARTS.items():
        if name in (options.parts or PARTS):
            part(bench)


if __name__ == "__main__":
    main()
