"""A simulated sweep in a process of its own, to be killed: by another process, or by itself in mid-write."""

import os
import random
import signal
import time
from pathlib import Path

from hybrid_sweep.driver.sweep import begin, carry_on, recorded_spec
from hybrid_sweep.results import ResultsFolder
from hybrid_sweep.search.storage import FILE, StorageView
from hybrid_sweep.simulation.backend import SimulatedBackend, SimulatedRun, Timing, VirtualClock, WorkerDeath
from hybrid_sweep.spec.sweep import SweepSpec
from hybrid_sweep.store.journal import Journal

REPORTS = 4
POINTS = 20
CONTROLS = 16
SPEC = SweepSpec(
    name="killed",
    workload="trainables.mnist_mlp:MnistMlp",
    sampler="grid",
    space={"max_predict_steps": [20, 40, 80, 120, 160], "correction_interval": [0, 10, 20, 40]},
    timing="counted",
)


class DawdlingClock(VirtualClock):
    """Sleeps a moment at every event, so that a kill may fall anywhere."""

    def advance_to(self, seconds):
        time.sleep(0.001)
        super().advance_to(seconds)


def outcome(run):
    """Be worth what the settings say: longer horizons are faster and worse, corrections cost and help.

    A control is faster and better than all of them.
    """
    if run.arm:
        reports = tuple((1.0 * i, {"step": 10 * i}) for i in range(1, REPORTS + 1))
        return SimulatedRun(reports=reports, result={"speedup_counted": 9.0, "quality": 9.0})
    horizon, interval = run.config["max_predict_steps"], run.config["correction_interval"]
    if (horizon, interval) == (160, 0):
        return SimulatedRun(reports=((1.0, {"step": 10}),), state="diverged", reason="loss is nan")
    speedup = 1 + horizon / 50 - (2 / interval if interval else 0)
    quality = 1.1 - (horizon / 300) ** 2 + (0.01 * (50 - interval) / 50 if interval else 0)
    reports = tuple(
        (1.0 * i, {"step": 10 * i, "speedup_counted": speedup, "quality": quality})
        for i in range(1, REPORTS + 1)
    )
    return SimulatedRun(reports=reports, result={"speedup_counted": speedup, "quality": quality, "steps": 40})


def new_sweep(path):
    """Begin one; `sit` carries it on."""
    return ResultsFolder(begin(path, SPEC, 10 * REPORTS, {}).path)


def sit(path, dies=None):
    """Carry the sweep in a folder on to its end; `dies` seeds when and how it kills itself, if it does."""
    folder = ResultsFolder.open(path)
    if dies is not None:
        _kill_in_mid_write(folder, random.Random(dies))

    def backend():
        timing = Timing(checkpoint_seconds=1.5)
        return SimulatedBackend(
            outcome, 3, clock=DawdlingClock(), timing=timing, faults=[WorkerDeath(at=2.2, slot=1)]
        )

    carry_on(folder, recorded_spec(folder), backend, lambda event: None, finish=lambda folder: None)


def _kill_in_mid_write(folder, chance):
    """Let one of the next writes reach the disk in part, and end the process there with SIGKILL."""
    left = [chance.randrange(1, 60)]

    def torn(write, path_of):
        def wrapper(*arguments, **keywords):
            left[0] -= 1
            path = path_of(*arguments)
            before = path.stat().st_size if path.exists() else 0
            result = write(*arguments, **keywords)
            if left[0] == 0:
                os.truncate(path, chance.randint(min(before, path.stat().st_size), path.stat().st_size))
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return wrapper

    Journal.append = torn(Journal.append, lambda journal, *rest: journal.path)
    StorageView.add = torn(StorageView.add, lambda *rest: folder.path / FILE)
    ResultsFolder.write_checkpoint = _last_act(ResultsFolder.write_checkpoint, left)


def _last_act(write, left):
    """Checkpoints are replaced whole: the process may die behind one, not within."""

    def wrapper(*arguments):
        left[0] -= 1
        write(*arguments)
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    return wrapper


def run_whole(path):
    """Run the sweep without a break."""
    new_sweep(path)
    sit(path)
    return ResultsFolder.open(Path(path))
