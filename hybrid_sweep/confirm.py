"""Confirm a front: its points and their controls, run anew on fresh seeds, one at a time, and timed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import product
from math import inf
from pathlib import Path
from statistics import median
from typing import Any, Literal

import pandas as pd
import torch

from hybrid_sweep.analysis.comparison import PAIR_COLUMNS, Confirmation, comparisons
from hybrid_sweep.analysis.export import encode
from hybrid_sweep.analysis.files import replacing
from hybrid_sweep.analysis.folder import ResultsFolder
from hybrid_sweep.analysis.pareto import configurations, speedup_column
from hybrid_sweep.analysis.summary import MIN_QUALITY, best_point
from hybrid_sweep.arm import Arm, ArmName, tuning_trials
from hybrid_sweep.cluster.work import WorkloadOrder
from hybrid_sweep.driver.recorder import writing
from hybrid_sweep.driver.sweep import recorded_spec
from hybrid_sweep.errors import UserError, unknown_name
from hybrid_sweep.journal import Journal
from hybrid_sweep.measure.arms import (
    AVERAGED_SHARE,
    HybridCurve,
    NotApplicable,
    jump_part,
    run_arm,
    run_hybrid,
)
from hybrid_sweep.measure.curve import Curve
from hybrid_sweep.measure.reference import start
from hybrid_sweep.measure.score import compared
from hybrid_sweep.spec import SweepSpec
from hybrid_sweep.trainer.config import HybridConfig
from hybrid_sweep.trainer.records import Segment
from hybrid_sweep.workload import Workload, quality_of

LEAST_SEEDS = 3
TIMINGS = 3
MATCHED = (1.0, 1.5, 2.0, 3.0, 4.0)
"""Learning rates tried of the arms that raise it, as shares of what the hybrid's jumps amount to."""
ARMS: dict[str, tuple[ArmName, ...]] = {
    "basic": ("lr_matched", "tuned"),
    "full": ("lr_matched", "tuned", "truncated", "lr", "momentum", "average", "schedule_free"),
}
TUNED = ("tuned", "schedule_free")
REFERENCE: Literal["reference"] = "reference"
HYBRID = "hybrid"
Key = tuple[str, str, int]
"""Trial id ("" for the reference), settings of the arm as JSON ("hybrid" for the point itself), seed."""


@dataclass(frozen=True, slots=True)
class Progress:
    """So many training runs of `total` are done; `next` names the one that comes."""

    done: int
    total: int
    next: str


def confirm_sweep(
    path: Path | str,
    *,
    seeds: int = 5,
    points: int = 2,
    min_quality: float = MIN_QUALITY,
    arms: str = "basic",
    tell: Callable[[Progress], object] = lambda progress: None,
) -> Confirmation | None:
    """Run a front's best points and their controls again, and write DIR/confirm; return None if stopped.

    The controls' settings are chosen first, on the sweep's first seed: the fewest backward passes to the
    target, then validation loss, for that is what the verdict compares. The learning rate of `lr_matched` is
    chosen among `MATCHED`, the tuned baseline among as many settings as the sweep has done configurations
    (at most its `tuning_trials`), at as many steps as the best point takes backward passes.
    The other points are compared with the same tuned settings, at their own number of steps. Then, on seeds
    that the sweep has not seen, reference, points and controls run in turn, `TIMINGS` times each, in this
    process and at one thread on a CPU. Losses at the end are of the test split; times to the target are read
    from the validation loss.

    Every run is on disk before the next begins: started again, it goes on; with more seeds or points, it
    does only what is new.

    Args:
        path: a results folder.
        seeds: how many fresh ones, from the one after the sweep's last.
        points: how many front points: the best one, then others of at least `min_quality`, fastest first.
        min_quality: the bar; the target is the loss at which the reference's end has this quality.
        arms: one of `ARMS`.
        tell: told before each run.

    Raises:
        UserError: too few seeds or points, unknown arms, no front, a sweep that still runs, a workload that
            is gone, or a device that this machine has not.
    """
    if arms not in ARMS:
        raise unknown_name("arms", arms, list(ARMS))
    if seeds < LEAST_SEEDS:
        raise UserError(f"seeds={seeds} is too few for an interval: use at least {LEAST_SEEDS}, better 10")
    if points < 1:
        raise UserError(f"points={points} leaves nothing to confirm: use at least 1")
    if not 0 < min_quality < inf:
        raise UserError(f"min_quality={min_quality:g} is no bar: use a ratio near 1, such as {MIN_QUALITY}")
    folder = ResultsFolder.open(path)
    spec = recorded_spec(folder)
    with folder.driven(), writing(folder.path, "confirm"):
        front = folder.table("front")
        chosen = _choice(front, points, min_quality)
        if not chosen:
            raise UserError(f"{path} has no front, no configuration is done: run or resume the sweep first")
        workload = _workload(folder, spec)
        folder.confirm_path.mkdir(exist_ok=True)
        runs = Runs(Journal(folder.confirm_path / "journal.jsonl"), workload, folder.manifest["steps"])
        plan = Plan(
            points={point: HybridConfig(**folder.trial_config(point)) for point in chosen},
            arms=ARMS[arms],
            tuning_seed=spec.seed,
            tuning_trials=min(len(configurations(folder.trials())), spec.tuning_trials),
            seeds=[max(spec.seeds) + 1 + number for number in range(seeds)],
            min_quality=min_quality,
        )
        try:
            for progress in plan.run(runs):
                tell(progress)
                if folder.stop_request.exists():
                    return None
        except KeyboardInterrupt:
            return None
        pairs = plan.pairs(runs)
        explored = front.set_index("trial_id")[[speedup_column(folder.manifest), "quality"]]
        explored.columns = pd.Index(["explored_speedup", "explored_quality"])
        found = Confirmation(
            seeds=plan.seeds,
            min_quality=min_quality,
            left_out=[str(point) for point in front["trial_id"] if point not in chosen],
            tried=plan.tuning_trials,
            table=comparisons(pairs).join(explored, on="trial_id"),
        )
        with replacing(folder.confirm_path / "pairs.csv") as temporary:
            temporary.write_bytes(encode(pairs, "csv"))
        found.write(folder.confirm_path)
        folder.export_all(min_quality)
        return found


class Runs:
    """Training runs, each on disk once it is over and never run twice.

    Args:
        journal: where they are.
        workload: what is trained.
        steps: N, logical steps of the reference and the hybrid.
    """

    def __init__(self, journal: Journal, workload: Workload, steps: int) -> None:
        self.workload, self.steps = workload, steps
        self._journal = journal
        self._curves: dict[Key, list[Curve]] = {}
        for event in Journal.events(journal.path):
            if event["event"] == "ran" and event["steps"] == steps:
                key = event["trial_id"], event["arm"], event["seed"]
                self._curves.setdefault(key, []).append(_curve(event["curve"]))

    def curves(self, key: Key) -> list[Curve]:
        """Return what is known of a run, a curve a timing."""
        return self._curves.get(key, [])

    def hybrid(self, trial_id: str, seed: int) -> HybridCurve:
        """Return the first hybrid run of a point with this seed."""
        curve = self.curves((trial_id, HYBRID, seed))[0]
        if not isinstance(curve, HybridCurve):
            raise UserError(f"{self._journal.path} is corrupt ({trial_id} has no trace): delete it")
        return curve

    def add(self, key: Key, config: HybridConfig | None, *, test: bool) -> None:
        """Train once more; a point with its `config`, a control on the budget of its point's hybrid run."""
        trial_id, arm, seed = key
        test = test and not self.curves(key)  # the split is looked at once
        if config is not None:
            curve: Curve = run_hybrid(self.workload, seed, config, self.steps, test=test)
        elif arm == REFERENCE:
            curve = run_arm(self.workload, seed, Arm(name=REFERENCE), steps=self.steps, test=test)
        else:
            hybrid = self.hybrid(trial_id, seed)
            budget = hybrid.backward_calls[-1]
            settings = Arm(**json.loads(arm))
            curve = run_arm(self.workload, seed, settings, steps=budget, trace=hybrid.trace, test=test)
        values = {"trial_id": trial_id, "arm": arm, "seed": seed, "steps": self.steps}
        self._journal.append({"event": "ran", **values, "curve": asdict(curve)})
        self._curves.setdefault(key, []).append(curve)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a confirmation runs.

    Attributes:
        points: configurations by id, the best one first.
        arms: controls, beside the reference.
        tuning_seed: of the sweep, with which their settings are chosen.
        tuning_trials: how many settings the tuned arms are chosen from.
        seeds: fresh ones.
        min_quality: the bar, which sets the target loss.
    """

    points: dict[str, HybridConfig]
    arms: tuple[ArmName, ...]
    tuning_seed: int
    tuning_trials: int
    seeds: list[int]
    min_quality: float

    def run(self, runs: Runs) -> Iterator[Progress]:
        """Run what is not there yet; yield before each run. An arm that does not apply here is left out."""
        points, rounds = len(self.points), len(self.seeds) * TIMINGS
        tuned = self.tuning_trials * sum(arm in TUNED for arm in self.arms)
        each = sum(
            {"lr_matched": len(MATCHED), "lr": len(MATCHED), **dict.fromkeys(TUNED, 0)}.get(a, 1)
            for a in self.arms
        )
        total = 1 + tuned + points * (1 + each) + rounds * (1 + points * (1 + len(self.arms)))
        for number, (key, timing, config) in enumerate(self._work(runs)):
            if len(runs.curves(key)) >= timing:
                continue
            yield Progress(number, total, _label(key))
            try:
                runs.add(key, config, test=key[2] != self.tuning_seed)
            except NotApplicable:
                continue

    def _work(self, runs: Runs) -> Iterator[tuple[Key, int, HybridConfig | None]]:
        """Yield each run with the number of its timing; what comes later depends on those before."""
        yield ("", REFERENCE, self.tuning_seed), 1, None
        for point, config in self.points.items():
            yield (point, HYBRID, self.tuning_seed), 1, config
            for arm in self.arms:
                if self._tuned_on(point, arm) == point:
                    for settings in self._candidates(runs, point, arm):
                        yield (point, settings, self.tuning_seed), 1, None
        controls = {point: self.controls(runs, point).values() for point in self.points}
        for seed, timing in product(self.seeds, range(1, TIMINGS + 1)):
            yield ("", REFERENCE, seed), timing, None
            for point, config in self.points.items():
                yield (point, HYBRID, seed), timing, config
                for settings in controls[point]:
                    yield (point, settings, seed), timing, None

    def controls(self, runs: Runs, point: str) -> dict[str, str]:
        """Return the chosen settings of each control of a point, as JSON, by the arm's name."""
        best: dict[str, str] = {}
        target = self._target(runs, self.tuning_seed)
        for arm in self.arms:
            owner = self._tuned_on(point, arm)
            curves = {
                s: runs.curves((owner, s, self.tuning_seed)) for s in self._candidates(runs, owner, arm)
            }
            tried = [
                (found[0].backward_calls_to(target), found[0].val_loss[-1], settings)
                for settings, found in curves.items()
                if found
            ]
            if tried:
                best[arm] = min(tried)[2]
        return best

    def pairs(self, runs: Runs) -> pd.DataFrame:
        """Return one row a point, control and seed: `PAIR_COLUMNS`."""
        kind, rate = quality_of(runs.workload), _learning_rate(runs.workload)
        rows = []
        for point in self.points:
            arms = {
                REFERENCE: ("", REFERENCE),
                **{a: (point, c) for a, c in self.controls(runs, point).items()},
            }
            for arm, (owner, settings) in arms.items():
                what = "your recipe" if arm == REFERENCE else described(Arm(**json.loads(settings)), rate)
                for seed in self.seeds:
                    reference = runs.curves(("", REFERENCE, seed))[0]
                    control, hybrid = runs.curves((owner, settings, seed)), runs.curves((point, HYBRID, seed))
                    target = self._target(runs, seed)
                    gained = reference.val_loss[0] - reference.val_loss[-1]
                    rows.append(
                        {
                            "trial_id": point,
                            "arm": arm,
                            "what": what,
                            "seed": seed,
                            "target_loss": target,
                            "seconds_to_target": median(curve.seconds_to(target) for curve in control),
                            "hybrid_seconds_to_target": median(curve.seconds_to(target) for curve in hybrid),
                            "seconds": median(curve.seconds[-1] for curve in control),
                            "hybrid_seconds": median(curve.seconds[-1] for curve in hybrid),
                            "backward_calls": control[0].backward_calls[-1],
                            "hybrid_backward_calls": hybrid[0].backward_calls[-1],
                            "test_loss": control[0].test["loss"],
                            "hybrid_test_loss": hybrid[0].test["loss"],
                            "quality": compared(kind, _test(hybrid[0]), _test(control[0]), gained),
                            "val_quality": compared(kind, _val(hybrid[0]), _val(control[0]), gained),
                        }
                    )
        return pd.DataFrame(rows, columns=list(PAIR_COLUMNS))

    def _candidates(self, runs: Runs, point: str, arm: ArmName) -> list[str]:
        """Return the settings to choose from, as JSON."""
        m, config = jump_part(runs.hybrid(point, self.tuning_seed).trace)[2], self.points[point]
        match arm:
            case "lr_matched":
                tail = config.stop_fraction if config.tail == "average" else None
                arms = [Arm(name=arm, multiplier=share * m, tail=tail) for share in MATCHED]
            case "lr":
                arms = [Arm(name=arm, multiplier=share * m, schedule_steps=runs.steps) for share in MATCHED]
            case "momentum":
                arms = [Arm(name=arm, multiplier=m, schedule_steps=runs.steps)]
            case "tuned" | "schedule_free":
                arms = tuning_trials(arm, self.tuning_trials, self.tuning_seed)
            case _:
                arms = [Arm(name=arm)]
        return [settings.model_dump_json() for settings in arms]

    def _target(self, runs: Runs, seed: int) -> float:
        return target_loss(quality_of(runs.workload), runs.curves(("", REFERENCE, seed))[0], self.min_quality)

    def _tuned_on(self, point: str, arm: str) -> str:
        """Return the point at whose number of steps the arm's settings are chosen."""
        return next(iter(self.points)) if arm in TUNED else point


def target_loss(kind: str, reference: Curve, min_quality: float) -> float:
    """Return the validation loss at which the end of the reference run has a quality of `min_quality`.

    For "loss_ratio" it is its last loss / `min_quality`; for the other kinds, whose quality is no ratio of
    losses, its last loss + (1 - `min_quality`) of what it gained in its whole run.
    """
    first, last = reference.val_loss[0], reference.val_loss[-1]
    return last / min_quality if kind == "loss_ratio" else last + (1 - min_quality) * (first - last)


def described(arm: Arm, recipe_rate: float) -> str:
    """Return a control's settings in words, for a recipe of learning rate `recipe_rate`."""
    rate = (arm.multiplier or 1.0) * recipe_rate
    kind = "AdamW" if arm.optimizer == "adamw" else "SGD"
    match arm.name:
        case "lr":
            return f"the same recipe at learning rate {rate:.2g}"
        case "lr_matched":
            return f"the same recipe at learning rate {rate:.2g} where the jumps were"
        case "momentum":
            return f"the same recipe with momentum {1 - 1 / (arm.multiplier or 1.0):.2f}"
        case "truncated":
            return "your recipe, stopped at as many backward passes"
        case "average":
            return f"your recipe stopped as early, its last {AVERAGED_SHARE:.0%} of weights averaged"
    nesterov = "beta1" if kind == "AdamW" else "Nesterov momentum" if arm.name == "tuned" else "momentum"
    settings = f"{arm.lr:.2g}, {nesterov} {arm.momentum:.2f}, weight decay {arm.weight_decay:.1g}"
    name, decay = (
        (kind, f", {arm.decay} decay to 0") if arm.name == "tuned" else (f"Schedule-Free {kind}", "")
    )
    return f"{name} at learning rate {settings}{decay}"


def _choice(front: pd.DataFrame, points: int, min_quality: float) -> list[str]:
    """Return the ids of the best point and of others of good quality, fastest first."""
    best = best_point(front, min_quality)
    if best is None:
        return []
    good = front.loc[front["quality"] >= min_quality, "trial_id"]
    return list(dict.fromkeys([str(best["trial_id"]), *map(str, good)]))[:points]


def _workload(folder: ResultsFolder, spec: SweepSpec) -> Workload:
    """Build the workload on the kind of device that the sweep ran on."""
    device = (folder.manifest.get("hardware") or {}).get("device", "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("the sweep ran on cuda, and torch sees none here: confirm it on such a machine")
    return WorkloadOrder(name=spec.workload.name, keywords=spec.workload.keywords, device=device).build()


def _learning_rate(workload: Workload) -> float:
    return start(workload, 0).learning_rate


def _test(curve: Curve) -> tuple[float, float | None]:
    return curve.test["loss"], curve.test.get("accuracy")


def _val(curve: Curve) -> tuple[float, float | None]:
    return curve.val_loss[-1], curve.val_accuracy[-1] if curve.val_accuracy else None


def _curve(values: Mapping[str, Any]) -> Curve:
    """Return a curve from its journal, where infinities are text."""
    lists = {name: [float(x) for x in values[name]] for name in ("seconds", "val_loss")}
    test = {name: float(value) for name, value in values["test"].items() if value is not None}
    if "trace" not in values:
        return Curve(**{**values, **lists, "test": test})
    return HybridCurve(**{**values, **lists, "test": test, "trace": [Segment(*s) for s in values["trace"]]})


def _label(key: Key) -> str:
    trial_id, arm, seed = key
    name = arm if arm in (REFERENCE, HYBRID) else json.loads(arm)["name"]
    return f"{name.replace('_', ' ')} of {trial_id}, seed {seed}" if trial_id else f"{name}, seed {seed}"
