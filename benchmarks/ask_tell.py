"""What an ask and a tell cost at 500 trials, the journal included, against bare Optuna in the same run.

    python benchmarks/ask_tell.py [TRIALS]

Four axes, two objectives; the mean of the last 100 trials. Bar: 25 ms with TPE.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from pathlib import Path
from statistics import fmean

import optuna

from hybrid_sweep.driver.backend import Finished
from hybrid_sweep.driver.recorder import Recorder
from hybrid_sweep.results import ResultsFolder
from hybrid_sweep.search.dimensions import distribution
from hybrid_sweep.search.sampler import make_sampler
from hybrid_sweep.search.study import Study
from hybrid_sweep.spec.sweep import SweepSpec

SPACE = {
    "max_predict_steps": {"low": 20, "high": 300},
    "correction_interval": [0, 5, 10, 15, 20],
    "confidence_threshold": {"low": 0.3, "high": 0.95},
    "divergence_threshold": {"low": 1.5, "high": 6.0, "log": True},
}
LAST = 100


def worth(rng: random.Random) -> tuple[float, float]:
    """Return a speedup and a quality."""
    return 1 + 2 * rng.random(), 0.8 + 0.3 * rng.random()


def ours(spec: SweepSpec, trials: int) -> float:
    """Return milliseconds of ask, tell and three fsynced journal lines."""
    rng, times = random.Random(0), []
    with tempfile.TemporaryDirectory() as scratch:
        recorder = Recorder(ResultsFolder.create(Path(scratch) / "r"), lambda event: None)
        study = Study(spec, "x", 1000)
        for _ in range(trials):
            began = time.perf_counter()
            asked = study.ask()
            assert asked is not None
            recorder.asked(asked.event())
            speedup, quality = worth(rng)
            key, result = (asked.point.trial_id, 0), {"speedup_counted": speedup, "quality": quality}
            recorder.finished(Finished(key, "done", "", result))
            study.finish(key, "done", "", result)
            times.append(time.perf_counter() - began)
    return 1000 * fmean(times[-LAST:])


def bare(spec: SweepSpec, trials: int) -> float:
    """Return milliseconds of ask and tell of an Optuna study in memory with the same sampler."""
    rng, times = random.Random(0), []
    study = optuna.create_study(directions=["maximize", "maximize"], sampler=make_sampler(spec, 0))
    space = {name: distribution(axis) for name, axis in spec.space.items()}
    for _ in range(trials):
        began = time.perf_counter()
        study.tell(study.ask(space), worth(rng))
        times.append(time.perf_counter() - began)
    return 1000 * fmean(times[-LAST:])


def main() -> None:
    """Print a line a sampler."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    trials = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    print(f"ask + tell, mean of trials {trials - LAST + 1} to {trials}: milliseconds")
    for sampler in ("tpe", "nsga2", "random"):
        spec = SweepSpec(name="x", workload="a:B", space=SPACE, sampler=sampler, trials=trials)
        mine, theirs = ours(spec, trials), bare(spec, trials)
        print(f"  {sampler:7} {mine:6.2f}   bare, no journal {theirs:6.2f}   ratio {mine / theirs:.2f}")


if __name__ == "__main__":
    main()
