"""What a trial costs beside its training: ours against Ray Tune, on one local Ray, in one run.

    python benchmarks/trial_overhead.py

60 trials that do nothing on 2 slots, and 16 trials that sleep a second on 4, after the workers are up. The
Gaussian process thinks for a second a point, more than nothing takes: it stands in the second table only.
"""

from __future__ import annotations

import logging
import os
import tempfile
import time
from pathlib import Path

import ray
from ray import tune

from hybrid_sweep.cluster.backend import RayBackend
from hybrid_sweep.cluster.connection import QUIET
from hybrid_sweep.driver.loop import Loop
from hybrid_sweep.driver.recorder import Recorder
from hybrid_sweep.results import ResultsFolder
from hybrid_sweep.search.study import Study
from hybrid_sweep.spec.sweep import SweepSpec

SAMPLERS = ("tpe", "gp", "nsga2", "random", "grid")
SPACE = {"max_predict_steps": list(range(10, 190, 3)), "confidence_threshold": [0.6]}


class Sleeper:
    """A runner whose trials take `seconds` and are worth what their horizon says."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def ready(self) -> None:
        pass

    def start(self, point, checkpoint=None) -> None:
        self.point = point

    def step(self):
        time.sleep(self.seconds)
        horizon = self.point["config"]["max_predict_steps"]
        result = {"speedup_counted": 1 + horizon / 100, "quality": 1.1 - horizon / 1000}
        finished = {"state": "done", "reason": "", "result": result}
        return {"report": {"step": 100, **result}, "finished": finished}


class TuneSleeper(tune.Trainable):
    """The same for Ray Tune, by its class interface."""

    def setup(self, config) -> None:
        self.seconds = config["seconds"]

    def reset_config(self, new_config) -> bool:
        self.seconds = new_config["seconds"]
        return True

    def step(self):
        time.sleep(self.seconds)
        return {"speedup": 1.0, "done": True}


def ours(trials: int, slots: int, seconds: float, sampler: str) -> float:
    """Return wall-clock seconds of all trials once the workers are up."""
    spec = SweepSpec(name="x", workload="a:B", space=SPACE, sampler=sampler, trials=trials, mask=None)
    backend = RayBackend(Sleeper, (seconds,), {"cpu": 1, "gpu": 0}, lambda: slots)
    while backend.free < slots:
        backend.wait(1.0)
    with tempfile.TemporaryDirectory() as scratch:
        recorder = Recorder(ResultsFolder.create(Path(scratch) / "r"), lambda event: None)
        loop = Loop(Study(spec, "x", 100), backend, recorder, [0], max_retries=0)
        began = time.perf_counter()
        loop.run()
        took = time.perf_counter() - began
    if recorder.counts["done"] != trials:
        raise SystemExit(f"{recorder.counts} instead of {trials} done")
    backend.close()
    return took


def raw_tune(trials: int, slots: int, seconds: float, *, reuse: bool) -> float:
    """Return wall-clock seconds of `Tuner.fit`, the start of its actors included."""
    with tempfile.TemporaryDirectory() as scratch:
        tuner = tune.Tuner(
            TuneSleeper,
            param_space={"seconds": seconds, "i": tune.grid_search(list(range(trials)))},
            tune_config=tune.TuneConfig(max_concurrent_trials=slots, reuse_actors=reuse),
            run_config=tune.RunConfig(
                storage_path=scratch,
                verbose=0,
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            ),
        )
        began = time.perf_counter()
        results = tuner.fit()
        took = time.perf_counter() - began
    if results.num_errors:
        raise SystemExit(f"{results.num_errors} of Tune's trials failed")
    return took


def main() -> None:
    """Print both tables."""
    os.environ.update({**QUIET, "RAY_AUTH_MODE": "disabled"})
    ray.init(
        address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR
    )
    print("60 trials that do nothing, 2 slots: seconds a trial")
    mine = {sampler: ours(60, 2, 0.0, sampler) / 60 for sampler in SAMPLERS if sampler != "gp"}
    reused, default = (raw_tune(60, 2, 0.0, reuse=reuse) / 60 for reuse in (True, False))
    for sampler, seconds in mine.items():
        print(f"  ours, {sampler:7} {seconds:.4f}   {default / seconds:6.0f} times less than Tune's default")
    print(f"  Ray Tune, reuse_actors {reused:.4f}\n  Ray Tune, default      {default:.4f}")
    print("16 trials of 1 s, 4 slots (ideal 4.00 s): seconds in all")
    for sampler in SAMPLERS:
        print(f"  ours, {sampler:7} {ours(16, 4, 1.0, sampler):.2f}")
    for reuse in (True, False):
        name = "reuse_actors" if reuse else "default"
        print(f"  Ray Tune, {name:12} {raw_tune(16, 4, 1.0, reuse=reuse):.2f} (its actors' start included)")


if __name__ == "__main__":
    main()
