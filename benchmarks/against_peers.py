"""One sweep in five ways: Ray Tune, Ray Tune with reused actors, Optuna, Syne Tune, and this package.

    pip install '.[bench]'
    python benchmarks/against_peers.py [--data mnist] [--report-every 500] [--rounds 3] [--quick]

The 60 configurations of grid60 with the same trainer and seed, one thread a trial, two trials at once, each
scored against one reference run that is shared as far as the peer allows it (a file each in
`benchmarks/peers/`). Ours is `hybrid-sweep run grid60` without its control runs, which the peers have not.
Every arm is a process of its own and begins with an empty cache of this package; the arms alternate, round
after round.

Seconds are those of the whole process, imports included. Memory is the peak of all its processes together,
looked at every two seconds: a page that some of them share counts once, and as "resident" as often as it is
mapped. "Training" is the time that trials spend in training as their trainer measures it, of the time that
the cores had: in all, from the first trial's start to the last one's end, and there with evaluation.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
import tempfile
from dataclasses import dataclass
from datetime import datetime
from math import isclose
from pathlib import Path
from statistics import median
from subprocess import run as run_process
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from peers.process import Took

SWEEP = "grid60"
QUICK = {
    "steps": "400",
    "space.max_predict_steps": "[50, 150]",
    "space.correction_interval": "[0, 10]",
    "space.confidence_threshold": "[0.4]",
}
NEEDED = {"psutil": "psutil", "joblib": "joblib", "syne_tune": "syne-tune"}
EVERYBODYS = "torch, ray.tune, optuna, joblib, syne_tune"
EVERYBODYS += ", hybrid_sweep.cli, hybrid_sweep.cluster.launch, hybrid_sweep.cluster.session"
PEERS = Path(__file__).with_name("peers")
TOLERANCE = 1e-6
"""Relative difference of two qualities that counts as rounding: sums in another order."""
Row = dict[str, Any]
Key = tuple[Any, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlConfig:
    """One way to run the sweep.

    Attributes:
        label: in the table.
        command: what is run, before the options that all arms take.
        note: what it cannot do.
    """

    label: str
    command: tuple[str, ...]
    note: str = ""


OURS = "ours"
ARMS = {
    "ray": ControlConfig(
        label="Ray Tune, defaults",
        command=(str(PEERS / "with_ray.py"),),
        note="a process a trial, each of which imports torch and loads the data",
    ),
    "ray-reuse": ControlConfig(
        label="Ray Tune, reuse_actors", command=(str(PEERS / "with_ray.py"), "--reuse-actors")
    ),
    "optuna": ControlConfig(
        label="Optuna, joblib",
        command=(str(PEERS / "with_optuna.py"),),
        note="no reports while a trial runs: Optuna takes none where there are two objectives",
    ),
    "syne-tune": ControlConfig(
        label="Syne Tune, local",
        command=(str(PEERS / "with_syne_tune.py"),),
        note="a process a trial, as above; a list that ends takes a searcher of one's own",
    ),
    OURS: ControlConfig(
        label="hybrid-sweep",
        command=("-m", "hybrid_sweep", "run", "--device", "cpu", "--set", "controls=none"),
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One arm in one round.

    Attributes:
        rows: by configuration.
        runs: how many there were; more than rows where some were run twice.
        took: seconds and memory.
        cores: that it had.
    """

    rows: dict[Key, Row]
    runs: int
    took: Took
    cores: int

    @property
    def trials_an_hour(self) -> float:
        """How many configurations an hour would do."""
        return 3600 * len(self.rows) / self.took.seconds

    @property
    def shares(self) -> tuple[float, float, float]:
        """Parts of the time that the cores had; what several trials share, or ran twice, counts once.

        Training in the whole; training from the first trial's start to the last one's end; there with
        evaluation.
        """
        rows = self.rows.values()
        trained = sum(row["train_seconds"] - (row.get("followed_seconds") or 0.0) for row in rows)
        evaluated = sum(row["eval_seconds"] for row in rows)
        trials = self.cores * (max(row["ended"] for row in rows) - min(row["began"] for row in rows))
        return trained / (self.cores * self.took.seconds), trained / trials, (trained + evaluated) / trials


def main() -> int:
    """Run the rounds and print the tables; return the exit code, 1 where results differ."""
    options = _options()
    if missing := [name for module, name in NEEDED.items() if importlib.util.find_spec(module) is None]:
        print(f"error: the peers need {', '.join(missing)}: pip install '.[bench]'", file=sys.stderr)
        return 2
    changes = {"workload.data": options.data, "report_every": str(options.report_every)}
    changes |= QUICK if options.quick else {}
    # the first arm reads no cold disk
    run_process([sys.executable, "-c", f"import {EVERYBODYS}"], check=True)
    measured: dict[str, list[Measured]] = {name: [] for name in options.arms}
    for number in range(1, options.rounds + 1):
        for name in options.arms:
            result = measure(ARMS[name], changes, options.concurrency)
            measured[name].append(result)
            print(f"round {number}, {ARMS[name].label}: {result.took.seconds:.1f} s", flush=True)
    print_costs(measured)
    return 0 if print_results(measured) else 1


def measure(arm: ControlConfig, changes: dict[str, str], concurrency: int) -> Measured:
    """Run the sweep once.

    Raises:
        SystemExit: it failed, or a trial of it did.
    """
    from peers.process import run  # only where the extra is installed

    from hybrid_sweep.spec.files import load_spec

    with tempfile.TemporaryDirectory(prefix="peers-") as scratch:
        out, log = Path(scratch, "out"), Path(scratch, "log")
        out.mkdir()
        command = [sys.executable, *arm.command, SWEEP, "--out", str(out), "--concurrency", str(concurrency)]
        command += [word for key, value in changes.items() for word in ("--set", f"{key}={value}")]
        took = run(command, _environment(Path(scratch)), log)
        if took.code:
            summarize_ray_error = log.read_text(encoding="utf-8", errors="replace")[-3000:]
            raise SystemExit(
                f"{summarize_ray_error}\nerror: {arm.label} ended with exit code {took.code}, see above"
            )
        rows = _our_rows(out) if arm is ARMS[OURS] else json.loads((out / "rows.json").read_bytes())
    if failed := sum(row["state"] not in ("done", "diverged") for row in rows):
        raise SystemExit(f"error: {arm.label}: {failed} trials failed")
    axes = load_spec(SWEEP, changes).space
    by_point = {tuple(row[name] for name in axes): row for row in rows}
    return Measured(rows=by_point, runs=len(rows), took=took, cores=concurrency)


def _our_rows(out: Path) -> list[Row]:
    """Return the runs in a journal as the peers tell theirs."""
    from hybrid_sweep.store.journal import Journal

    rows: dict[str, Row] = {}
    for event in Journal.events(out / "journal.jsonl", skip=("asked", "reported")):
        at = datetime.fromisoformat(event["at"]).timestamp()
        row = rows.setdefault(event["trial_id"], {})
        if event["event"] == "started":
            row |= {**event["config"], "began": at}
        elif event["event"] == "finished":
            row |= {**event["result"], "state": event["state"], "ended": at}
    return list(rows.values())


def print_costs(measured: dict[str, list[Measured]]) -> None:
    """Print medians over the rounds, the ratio taken within each, and what a peer cannot do."""
    rounds = len(next(iter(measured.values())))
    ours = [result.took.seconds for result in measured.get(OURS, [])]
    print(f"\n{os.cpu_count()} cores; " + ("1 round" if rounds == 1 else f"medians of {rounds} rounds"))
    print(f"{'':22}{'':>35}{'memory, MB':>16}{'training, % of':>18}{'and eval-':>11}")
    print(
        f"{'':22}{'seconds':>10}{'ours = 1':>10}{'trials an hour':>15}"
        f"{'once':>7}{'resident':>9}{'all':>9}{'trials':>9}{'uation':>11}"
    )
    for name, results in measured.items():
        seconds = [result.took.seconds for result in results]
        ratio = median(a / b for a, b in zip(seconds, ours, strict=True)) if ours else float("nan")
        print(
            f"{ARMS[name].label:22}{median(seconds):10.1f}{ratio:10.2f}"
            f"{median(r.trials_an_hour for r in results):15.0f}"
            f"{median(r.took.memory_bytes for r in results) / 1e6:7.0f}"
            f"{median(r.took.resident_bytes for r in results) / 1e6:9.0f}"
            + "".join(
                f"{100 * median(r.shares[i] for r in results):{w}.1f}" for i, w in enumerate((9, 9, 11))
            )
        )
    for name in measured:
        if ARMS[name].note:
            print(f"{ARMS[name].label}: {ARMS[name].note}")


def print_results(measured: dict[str, list[Measured]]) -> bool:
    """Hold the results of every arm against those of one; return whether all are the same."""
    base_name = OURS if OURS in measured else next(iter(measured))
    base = measured[base_name][0].rows
    print(f"\nsame results as {ARMS[base_name].label}, of {len(base)} configurations")
    print(f"{'':22}{'steps':>8}{'phases':>8}{'quality':>9}{'bit for bit':>13}{'runs too many':>15}")
    same = True
    for name, results in measured.items():
        for result in results:
            pairs = [(base[key], result.rows[key]) for key in base.keys() & result.rows.keys()]
            counts = [
                sum(one["steps"] == other["steps"] for one, other in pairs),
                sum(one["behaviour"] == other["behaviour"] for one, other in pairs),
                sum(isclose(one["quality"], other["quality"], rel_tol=TOLERANCE) for one, other in pairs),
            ]
            same &= len(base) == len(result.rows) == min(counts)
            exactly = sum(one["quality"] == other["quality"] for one, other in pairs)
            print(
                f"{ARMS[name].label:22}{counts[0]:8}{counts[1]:8}{counts[2]:9}{exactly:13}"
                f"{result.runs - len(result.rows):15}"
            )
    return same


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="bundled", help="bundled, or mnist in $HYBRID_SWEEP_DATA")
    parser.add_argument(
        "--report-every", type=int, default=1, help="logical steps between reports; 1 reports every cycle"
    )
    parser.add_argument("--rounds", type=int, default=1, help="how often all arms are run")
    parser.add_argument("--concurrency", type=int, default=2, help="trials at once, a core each")
    parser.add_argument("--quick", action="store_true", help="four short configurations, to try this out")
    parser.add_argument(
        "--arms", nargs="+", choices=list(ARMS), default=list(ARMS), help="which of them; all by default"
    )
    return parser.parse_args()


def _environment(scratch: Path) -> dict[str, str]:
    """Return the environment of an arm: an empty cache, and the same priority for all."""
    import matplotlib

    environment = {
        **os.environ,
        "XDG_CACHE_HOME": str(scratch / "cache"),
        "MPLCONFIGDIR": matplotlib.get_cachedir(),  # its list of fonts is no work of a sweep
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",  # 15 by default: Ray's trials alone would make way for others' work
    }
    if data := os.environ.get("HYBRID_SWEEP_DATA"):
        environment["HYBRID_SWEEP_DATA"] = str(Path(data).resolve())  # Ray's trials stand in another folder
    return environment


if __name__ == "__main__":
    sys.exit(main())
