"""Confirm the front of a results folder."""

from __future__ import annotations

from collections.abc import Callable, Collection
from math import inf
from pathlib import Path

import pandas as pd
import torch

from hybrid_sweep import limits
from hybrid_sweep.analysis.comparison import Confirmation, comparisons
from hybrid_sweep.analysis.export import encode
from hybrid_sweep.analysis.objectives import MIN_QUALITY, quality_kind, speedup_column
from hybrid_sweep.analysis.pareto import best_point, rivals
from hybrid_sweep.analysis.table import hybrid_runs
from hybrid_sweep.confirm.plan import ARMS, Plan, Progress
from hybrid_sweep.confirm.runs import Runs
from hybrid_sweep.driver.interrupts import as_interrupts
from hybrid_sweep.driver.moved import with_workload
from hybrid_sweep.driver.origin import validate_trust
from hybrid_sweep.driver.recorder import writing
from hybrid_sweep.driver.sweep import recorded_spec
from hybrid_sweep.errors import UserError, unknown_name
from hybrid_sweep.measure.workload_builder import WorkloadOrder
from hybrid_sweep.results import ResultsFolder
from hybrid_sweep.spec.sweep import SweepSpec
from hybrid_sweep.store.atomic import replacing
from hybrid_sweep.store.journal import Journal
from hybrid_sweep.store.runs import INTERRUPTED
from hybrid_sweep.trainer.config import HybridConfig
from hybrid_sweep.user_code import stop_within_import
from hybrid_sweep.workload import Workload

LEAST_SEEDS = 3


def confirm_sweep(
    path: Path | str,
    *,
    seeds: int = 5,
    points: int = 2,
    min_quality: float = MIN_QUALITY,
    arms: str = "basic",
    workload: str | None = None,
    trust: bool = False,
    on_progress: Callable[[Progress], object] = lambda progress: None,
) -> Confirmation | None:
    """Run a front's best points and their controls again, and write DIR/confirm; return None if stopped.

    The controls' settings are chosen first, on the sweep's first seed: the fewest backward passes to the
    target, then validation loss, for that is what the verdict compares. The learning rate of `lr_matched` is
    chosen among `FIRST_MULTIPLIERS`, and beyond them until it turns; the tuned baseline among as many
    settings as the sweep has tried configurations, those that diverged or were stopped early too (or its
    `tuning_trials`, which the verdict then says), at as many steps as the best point takes backward passes.
    The other points are compared with the same tuned settings, at their own number of steps. Then, on seeds
    that the sweep has not seen, reference, points and controls run in turn, `TIMINGS` times each, in this
    process and at one thread on a CPU. Losses at the end are of the test split; times to the target are read
    from the validation loss. At last each control runs once more with each seed, for as many steps as the
    training time that was measured of the hybrid pays for at the control's own pace.

    Every run is on disk before the next begins: started again, it goes on; with more seeds or points, it
    does only what is new.

    Args:
        path: a results folder.
        seeds: how many fresh ones, from the one after the sweep's last.
        points: how many front points: the best one, then others of at least `min_quality`, fastest first.
        min_quality: the bar; the target is the loss at which the reference's end has this quality.
        arms: one of `ARMS`.
        workload: import string of where the workload is now, as in `resume_sweep`.
        trust: as there.
        on_progress: told before each run.

    Raises:
        UserError: too few seeds or points, unknown arms, a bar so low that nothing has to be trained for it,
            no front, a sweep that still runs, a workload that is gone, another one or not trusted, or a
            device that this machine has not.
    """
    stop_within_import()
    if arms not in ARMS:
        raise unknown_name("arms", arms, list(ARMS))
    if seeds < LEAST_SEEDS:
        raise UserError(f"seeds={seeds} is too few for an interval: use at least {LEAST_SEEDS}, better 10")
    if seeds > limits.SEEDS:
        raise UserError(f"seeds={seeds} is more than are allowed: use at most {limits.SEEDS}")
    if points < 1:
        raise UserError(f"points={points} leaves nothing to confirm: use at least 1")
    if not 0 < min_quality < inf:
        raise UserError(f"min_quality={min_quality:g} is no bar: use a ratio near 1, such as {MIN_QUALITY}")
    folder = ResultsFolder.open(path)
    spec = recorded_spec(folder)
    no_front = UserError(f"{path} has no front, no configuration is done: run or resume the sweep first")
    if folder.table("front").empty and not folder.is_driven:
        raise no_front  # before the lock, which is a file
    with as_interrupts(), folder.driven(), writing(folder.path, "confirm"):
        front = folder.table("front")
        speed, kind = speedup_column(folder.manifest), quality_kind(folder.manifest)
        beaten = rivals(front, folder.trials(), speed, kind)
        chosen = _choice(front, points, min_quality, beaten)
        if not chosen:
            raise no_front
        spec = with_workload(spec, folder, workload)
        validate_trust(folder, spec, trust=trust, command="confirm")
        built = _workload(folder, spec)
        folder.confirm_path.mkdir(exist_ok=True)
        runs = Runs(Journal(folder.confirm_path / "journal.jsonl"), built, folder.manifest["steps"])
        tried = _tried(folder.trials())
        plan = Plan(
            points={point: HybridConfig(**folder.trial_config(point)) for point in chosen},
            arms=ARMS[arms],
            tuning_seed=spec.seed,
            tuning_trials=min(tried, spec.tuning_trials or tried),
            seeds=_fresh(spec, seeds),
            min_quality=min_quality,
        )
        try:
            for progress in plan.run(runs):
                on_progress(progress)
                if folder.stop_request.exists():
                    return None
        except KeyboardInterrupt:
            return None
        pairs = plan.pairs(runs)
        explored = front.set_index("trial_id")[[speed, "quality"]]
        explored.columns = pd.Index(["explored_speedup", "explored_quality"])
        found = Confirmation(
            seeds=plan.seeds,
            min_quality=min_quality,
            left_out=[str(point) for point in front["trial_id"] if point not in chosen],
            tried=plan.tuned_on(),
            not_applicable=plan.not_applicable(runs),
            configurations=tried,
            table=comparisons(pairs).join(explored, on="trial_id"),
        )
        with replacing(folder.confirm_path / "pairs.csv") as temporary:
            temporary.write_bytes(encode(pairs, "csv"))
        found.write(folder.confirm_path)
        folder.export_all(min_quality)
        return found


def _fresh(spec: SweepSpec, count: int) -> list[int]:
    """Return seeds that the sweep has not seen: those after its own, or before them where none are left."""
    after = spec.seeds[-1] + 1
    first = after if after + count <= 2**63 else spec.seed - count
    return list(range(first, first + count))


def _choice(front: pd.DataFrame, points: int, min_quality: float, beaten: Collection[str]) -> list[str]:
    """Return the ids of the best point and of others of good quality, fastest first."""
    best = best_point(front, min_quality, beaten)
    if best is None:
        return []
    good = front.loc[front["quality"] >= min_quality, "trial_id"]
    return list(dict.fromkeys([str(best["trial_id"]), *map(str, good)]))[:points]


def _tried(trials: pd.DataFrame) -> int:
    """Return how many configurations the sweep has chosen its best from, also among bad ones."""
    runs = hybrid_runs(trials)
    stopped = (runs["state"] == "pruned") & (runs["reason"] != INTERRUPTED)
    return int(runs.loc[runs["state"].isin(["done", "diverged"]) | stopped, "trial_id"].nunique())


def _workload(folder: ResultsFolder, spec: SweepSpec) -> Workload:
    """Build the workload on the kind of device that the sweep ran on."""
    device = (folder.manifest.get("hardware") or {}).get("device", "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("the sweep ran on cuda, and torch sees none here: confirm it on such a machine")
    order = WorkloadOrder.from_spec(spec, device)
    workload = order.build()
    order.validate_same_workload(folder.manifest)
    return workload
