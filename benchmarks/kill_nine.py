"""Kills processes of a real sweep with SIGKILL at random moments, resumes it, and looks for what is missing.

    python benchmarks/kill_nine.py [--driver N] [--worker N] [--raylet N]

One sweep on a local Ray is run unbroken. For each kind of process another one is killed there again and again
(10, 0 and 0 times by default) until it is through; then both are compared: runs lost, doubled or running,
the front by `speedup_counted`, and whether each end of a driver named the command that goes on.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import psutil

from hybrid_sweep.analysis.pareto import pareto_front
from hybrid_sweep.results import ResultsFolder
from hybrid_sweep.store.journal import Journal

COSTS = {
    "plain_step": 1.0,
    "batch": 0.02,
    "observe": 0.05,
    "update": 2.0,
    "checkpoint": 0.4,
    "jump": 0.1,
    "forward": 0.3,
    "score": 0.1,
}
SWEEP = [
    "grid60",
    "--steps=1200",
    "--set=timing=counted",
    "--set=controls=none",
    "--set=checkpoint_seconds=0.3",
    "--set=max_retries=1000",
    f"--set=unit_costs={COSTS}",
]
COLUMNS = ["trial_id", "speedup_counted", "quality"]
SPREAD_BYTES = 60_000
"""Of the journal, within which the next kill falls."""
END_SECONDS = 120.0
"""For a driver to end after its raylet has died, before it is counted as hanging."""


def command(*arguments: str) -> list[str]:
    """Return a call of the command line."""
    return [sys.executable, "-m", "hybrid_sweep", *arguments]


def victims(kind: str, driver: psutil.Process) -> list[psutil.Process]:
    """Return the processes of a kind that a driver has at this moment."""
    if kind == "driver":
        return [driver]
    names = {"raylet": ("raylet",), "worker": ("ray::TrialWorker",)}[kind]
    found = []
    for process in driver.children(recursive=True):
        with suppress(psutil.Error):
            if process.name().startswith(names) or " ".join(process.cmdline()).startswith(names):
                found.append(process)
    return found


def sit(call: list[str], folder: Path, kind: str, kills: int, rng: random.Random) -> tuple[int, int]:
    """Run `call` and kill as many processes as it lives through, at most `kills`.

    Returns:
        How many were killed, and of them how many ended the driver and left the command that goes on.
    """
    journal, done = folder / "journal.jsonl", 0

    def size() -> int:
        return journal.stat().st_size if journal.exists() else 0

    until = size() + rng.randrange(1, SPREAD_BYTES)
    with subprocess.Popen(call, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        driver = psutil.Process(process.pid)
        while process.poll() is None and done < kills:
            time.sleep(0.005)
            if size() < until:
                continue
            with suppress(psutil.Error):
                if found := victims(kind, driver):
                    rng.choice(found).send_signal(signal.SIGKILL)
                    done, until = done + 1, size() + rng.randrange(1, SPREAD_BYTES)
                    if kind != "worker":
                        break
        try:
            said = process.communicate(timeout=END_SECONDS if kind == "raylet" and done else None)[1]
        except subprocess.TimeoutExpired:
            process.kill()
            raise SystemExit(f"the driver hangs after its {kind} was killed") from None
    if process.returncode and not (done and kind != "worker"):
        raise SystemExit(f"{call} ended by itself with {process.returncode}: {said}")
    return done, int(bool(process.returncode) and f"hybrid-sweep resume {folder}" in said)


def compared(kind: str, kills: int, whole: Path, broken: Path, rng: random.Random) -> None:
    """Kill processes of one kind until a sweep is through, and print what became of it."""
    done, told, call = 0, 0, command("run", *SWEEP, f"--out={broken}")
    while done < kills:
        killed, said = sit(call, broken, kind, kills - done, rng)
        if not killed:
            break
        done, told, call = done + killed, told + said, command("resume", str(broken))
        print(
            f"{kind}: killed {done} of {kills}; {len(ResultsFolder(broken).trials())} runs started",
            flush=True,
        )
    subprocess.run(command("resume", str(broken)), check=True, stdout=subprocess.DEVNULL)
    events = list(Journal.events(broken / "journal.jsonl"))
    ends = Counter(e["trial_id"] for e in events if e["event"] == "finished")
    asked = [e["trial_id"] for e in events if e["event"] == "asked"]
    trials = ResultsFolder(broken).trials()
    one, other = (
        pareto_front(ResultsFolder(folder).trials(), "speedup_counted")[COLUMNS] for folder in (whole, broken)
    )
    ended = f"{told} of them named the command that goes on" if kind != "worker" else "the driver went on"
    print(f"{done} kills of the {kind}: {ended}; {len(asked)} points, {len(set(asked))} of them different")
    print(f"  lost {len(set(asked) - set(ends))}, doubled {sum(n > 1 for n in ends.values())}, ", end="")
    print(
        f"left running {(trials['state'] == 'running').sum()}, failed {(trials['state'] == 'failed').sum()}"
    )
    print(f"  same front by speedup_counted as the unbroken sweep: {one.equals(other)}", flush=True)


def main() -> None:
    """Print for each kind what was lost, doubled and stuck, and whether the fronts agree."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    counts = {"driver": 10, "worker": 0, "raylet": 0}
    for kind, count in counts.items():
        parser.add_argument(f"--{kind}", type=int, default=count, metavar="KILLS")
    wanted = vars(parser.parse_args())
    with tempfile.TemporaryDirectory() as scratch:
        whole, rng = Path(scratch, "whole"), random.Random(0)
        subprocess.run(command("run", *SWEEP, f"--out={whole}"), check=True, stdout=subprocess.DEVNULL)
        for kind in counts:
            if wanted[kind]:
                compared(kind, wanted[kind], whole, Path(scratch, kind), rng)


if __name__ == "__main__":
    main()
