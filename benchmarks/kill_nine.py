"""Kills the driver of a real sweep with SIGKILL at random moments, resumes it, and looks for what is missing.

    python benchmarks/kill_nine.py [KILLS]

One sweep on a local Ray is run unbroken, one is killed again and again (10 times by default) until it is
through; then both are compared: runs lost, doubled or left running, and the front by `speedup_counted`.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from hybrid_sweep.analysis.folder import ResultsFolder
from hybrid_sweep.analysis.pareto import pareto_front
from hybrid_sweep.journal import Journal

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
    f"--set=unit_costs={COSTS}",
]
COLUMNS = ["trial_id", "speedup_counted", "quality"]


def command(*arguments: str) -> list[str]:
    """Return a call of the command line."""
    return [sys.executable, "-m", "hybrid_sweep", *arguments]


def killed(call: list[str], folder: Path, rng: random.Random) -> bool:
    """Run `call` and kill it at a random number of bytes of its journal; return whether it was in time."""
    journal = folder / "journal.jsonl"
    size = journal.stat().st_size if journal.exists() else 0
    until = size + rng.randrange(1, 60_000)
    with subprocess.Popen(call, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            if journal.exists() and journal.stat().st_size >= until:
                process.send_signal(signal.SIGKILL)
                process.wait()
                return True
            time.sleep(0.005)
        if process.returncode:
            raise SystemExit(f"{call} ended by itself with {process.returncode}")
    return False


def main() -> None:
    """Print what was lost, doubled and stuck, and whether the fronts agree."""
    kills, rng = int(sys.argv[1]) if len(sys.argv) > 1 else 10, random.Random(0)
    with tempfile.TemporaryDirectory() as scratch:
        whole, broken = Path(scratch, "whole"), Path(scratch, "broken")
        subprocess.run(command("run", *SWEEP, f"--out={whole}"), check=True, stdout=subprocess.DEVNULL)
        done, call = 0, command("run", *SWEEP, f"--out={broken}")
        while done < kills and killed(call, broken, rng):
            done, call = done + 1, command("resume", str(broken))
            print(f"killed {done} of {kills}: {len(ResultsFolder(broken).trials())} runs begun", flush=True)
        subprocess.run(command("resume", str(broken)), check=True, stdout=subprocess.DEVNULL)
        ends = Counter(
            e["trial_id"] for e in Journal.events(broken / "journal.jsonl") if e["event"] == "finished"
        )
        asked = [e["trial_id"] for e in Journal.events(broken / "journal.jsonl") if e["event"] == "asked"]
        one, other = (
            pareto_front(ResultsFolder(folder).trials(), "speedup_counted")[COLUMNS]
            for folder in (whole, broken)
        )
        print(f"{done} kills; {len(asked)} points asked, {len(set(asked))} of them different")
        print(f"lost {len(set(asked) - set(ends))}, doubled {sum(n > 1 for n in ends.values())}, ", end="")
        print(f"left running {(ResultsFolder(broken).trials()['state'] == 'running').sum()}")
        print(f"same front by speedup_counted as the unbroken sweep: {one.equals(other)}")


if __name__ == "__main__":
    main()
