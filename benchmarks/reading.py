"""What a user waits for at a folder of 10,000 trials: `status`, `pareto` and `report`, command to prompt.

    python benchmarks/reading.py DIR [--trials 50000] [--against TREE]

The trials of a real sweep's folder are repeated under new names, with speedup and quality shifted at random,
until there are as many; every command runs in a process of its own. Seconds of the clock, seconds of the
processor, which another process on the machine changes less, and the most memory that was held at once.
With another checkout of this repository, its commands run in turn with those of this one.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
SHIFTED = ("speedup", "speedup_counted", "quality", "val_loss")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--against", type=Path, metavar="TREE", help="another checkout to run in turn")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "many"
        folder.mkdir()
        shutil.copy(options.folder / "manifest.json", folder)
        lines = repeat(options.folder / "journal.jsonl", folder / "journal.jsonl", options.trials)
        size = (folder / "journal.jsonl").stat().st_size
        print(f"{options.trials} trials, {lines} events, {size / 1e6:.0f} MB of journal")
        for command in ("report", "status", "pareto", "status", "pareto"):
            for tree in filter(None, (HERE, options.against)):
                print(f"{command:<8} {measured(tree, command, folder)}  {tree.resolve().name}", flush=True)


def measured(tree, command, folder):
    """Run one command of a checkout; return what it took."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "hybrid_sweep", command, str(folder)], cwd=tree, stdout=subprocess.DEVNULL
    )
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{command} ended with {process.returncode}")
    seconds, memory = time.perf_counter() - began, used.ru_maxrss / 1024
    return f"{seconds:6.2f} s  {used.ru_utime + used.ru_stime:6.2f} s of CPU  {memory:5.0f} MB"


def repeat(source, target, trials):
    """Write the events of `trials` trials; return how many events there are."""
    events = [json.loads(line) for line in source.read_text().splitlines()]
    controls = {event["trial_id"] for event in events if event.get("arm")}
    own = [event for event in events if "trial_id" in event and event["trial_id"] not in controls]
    names = list(dict.fromkeys(event["trial_id"] for event in own))
    draw = random.Random(0)
    written = 0
    with target.open("w") as out:
        for copy in range(-(-trials // len(names))):
            kept = set(names[: trials - copy * len(names)])
            shift = {name: draw.uniform(0.8, 1.25) for name in kept}
            for event in own:
                if event["trial_id"] in kept:
                    out.write(json.dumps(renamed(event, copy, shift[event["trial_id"]])) + "\n")
                    written += 1
    return written


def renamed(event, copy, factor):
    """Return the event as one of another trial, whose numbers are `factor` times as large."""
    event = {**event, "trial_id": f"{event['trial_id']}_{copy}"}
    for part in ("report", "result"):
        if event.get(part):
            shifted = {k: event[part][k] * factor for k in SHIFTED if isinstance(event[part].get(k), float)}
            event[part] = {**event[part], **shifted}
    return event


if __name__ == "__main__":
    main()
