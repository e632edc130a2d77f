"""What a sweep keeps in memory: 5,000 simulated trials, then 2,000 trials that do nothing on a local Ray.

    python benchmarks/driver_memory.py [--sampler random] [--simulated 5000] [--ray 2000] [--mask 1.5]

Each part is a whole sweep, journal and Optuna's view of it included, in a process of its own. Growth is
resident memory at the end less that after the first 100 trials; the slope is a line through one sample
every 50 trials, the first fifth left out. Bars: growth ≤ 50 MB, slope on Ray ≤ 10 KB a trial. With --mask
each draw that is refused leaves a failed trial in Optuna's study, of 2 KB. Linux only.
"""

import argparse
import gc
import logging
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from hybrid_sweep.driver.events import TrialFinished
from hybrid_sweep.driver.sweep import begin, carry_on
from hybrid_sweep.simulation.backend import SimulatedBackend, SimulatedRun
from hybrid_sweep.spec.sweep import SweepSpec

EVERY, SETTLED = 50, 100
REPORTS, STEPS = 5, 500


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sampler", default="random", choices=["random", "tpe", "nsga2"])
    parser.add_argument("--simulated", type=int, default=5000, help="trials on the simulated back-end")
    parser.add_argument("--ray", type=int, default=2000, help="trials on Ray; 0 leaves it out")
    parser.add_argument("--mask", type=float, help="largest η·λ, by which most of this space is masked")
    options = parser.parse_args()
    if options.simulated and options.ray:
        for part in (["--ray", "0"], ["--simulated", "0"]):  # each in a process of its own
            subprocess.run([sys.executable, __file__, *sys.argv[1:], *part], check=True)
    elif options.ray:
        measure("ray", options.sampler, options.ray, options.mask)
    else:
        measure("simulated", options.sampler, options.simulated, options.mask)


def measure(kind, sampler, trials, mask):
    """Run a sweep and print what the driver's memory did."""
    samples = [(0, resident_bytes())]
    ended = 0

    def tell(event):
        nonlocal ended
        if isinstance(event, TrialFinished):
            ended += 1
            if ended % EVERY == 0:
                gc.collect()
                samples.append((ended, resident_bytes()))

    spec = SweepSpec(
        name="memory",
        workload="trainables.mnist_mlp:MnistMlp",
        sampler=sampler,
        trials=trials,
        space={
            "max_predict_steps": {"low": 10, "high": 1000},
            "confidence_threshold": {"low": 0.1, "high": 0.9},
            "velocity_decay": {"low": 0.5, "high": 0.99},
            "full_steps": [8, 16, 32],
        },
        timing="counted",
        controls="none",
        mask=None if mask is None else {"eta_lambda": mask},
    )
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        folder = begin(Path(scratch) / "sweep", spec, STEPS, {})
        backend = simulated if kind == "simulated" else on_ray
        outcome = carry_on(folder, spec, backend, tell, finish=lambda folder: None)
        refused = folder.manifest.get("masked", 0)
    assert outcome.counts == {"done": trials}
    seconds = time.perf_counter() - began
    at, memory = np.array(samples, dtype=float).T
    settled, late = memory[at == SETTLED][0], at > trials / 5
    slope = np.polyfit(at[late], memory[late], 1)[0]
    print(
        f"{kind}, {sampler}: {trials} trials in {seconds:.0f} s; driver {memory[-1] / 1e6:.0f} MB, "
        f"grown by {(memory[-1] - settled) / 1e6:.1f} MB; slope {slope / 1e3:.2f} KB a trial, "
        f"and {refused / trials:.1f} masked draws"
    )


def result(config):
    """Return what a configuration is worth: longer horizons are faster and worse."""
    share = config["max_predict_steps"] / 1000
    return {"speedup_counted": 1 + 3 * share, "quality": 1.1 - share**2, "steps": STEPS}


def reports(config):
    """Return its reports, as many columns as real ones have."""
    more = {f"column{i}": i / 7 for i in range(10)}
    return [{"step": STEPS * i // REPORTS, **result(config), **more} for i in range(1, REPORTS + 1)]


def simulated():
    """Return the simulated back-end."""

    def outcome(run):
        said = tuple((float(i), report) for i, report in enumerate(reports(run.config), start=1))
        return SimulatedRun(reports=said, result=result(run.config))

    return SimulatedBackend(outcome, 4)


class Nothing:
    """A runner whose trials report at once and are done."""

    def ready(self):
        """Need nothing."""

    def start(self, point, checkpoint=None):
        """Take on a trial."""
        self.left = reports(point["config"])
        self.result = result(point["config"])

    def step(self):
        """Say the next report."""
        report = self.left.pop(0)
        if self.left:
            return {"report": report}
        return {"report": report, "finished": {"state": "done", "reason": "", "result": self.result}}


def on_ray():
    """Return the real back-end on a local Ray of two slots."""
    import ray

    from hybrid_sweep.cluster.backend import RayBackend
    from hybrid_sweep.cluster.connection import QUIET

    os.environ.update(QUIET)
    ray.init(
        address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR
    )
    return RayBackend(Nothing, (), {"cpu": 1, "gpu": 0}, lambda: 2)


def resident_bytes():
    """Return this process's resident memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
