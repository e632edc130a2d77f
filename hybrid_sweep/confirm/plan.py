"""What a confirmation runs, with which settings, and what is compared."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from statistics import median

import pandas as pd

from hybrid_sweep.analysis.comparison import PAIR_COLUMNS
from hybrid_sweep.confirm.runs import HYBRID, REFERENCE, Key, Runs
from hybrid_sweep.control import REPLAYED, ArmName, ControlConfig, tuning_trials
from hybrid_sweep.errors import UserError
from hybrid_sweep.measure.control_optimizers import NotApplicable
from hybrid_sweep.measure.control_training import AVERAGED_SHARE, jump_part
from hybrid_sweep.measure.curve import Curve, gained
from hybrid_sweep.measure.reference import start
from hybrid_sweep.measure.score import compared
from hybrid_sweep.trainer.config import HybridConfig
from hybrid_sweep.workload import metric_of, quality_of

TIMINGS = 3
FIRST_MULTIPLIERS = (1.0, 1.5, 2.0, 3.0, 4.0)
"""Learning rates tried of the arms that raise it, as shares of what the hybrid's jumps amount to."""
LARGER_MULTIPLIERS = (6.0, 9.0, 13.5)
"""Those tried next, each as long as the one before it is the best so far."""
SMALLER_MULTIPLIERS = (0.7, 0.5, 0.35, 0.25)
"""Those tried then: the first where 1 is the best so far or none trains, the others as the larger ones."""
MULTIPLIERS = FIRST_MULTIPLIERS + LARGER_MULTIPLIERS + SMALLER_MULTIPLIERS
LADDERS = ("lr_matched", "lr")
"""Arms whose learning rate is chosen so."""
ARMS: dict[str, tuple[ArmName, ...]] = {
    "basic": ("lr_matched", "tuned"),
    "full": ("lr_matched", "tuned", "truncated", "lr", "momentum", "average", "schedule_free"),
}
TUNED = ("tuned", "schedule_free")


@dataclass(frozen=True, slots=True)
class Progress:
    """So many training runs of `total` are done; `next` names the one that comes."""

    done: int
    total: int
    next: str


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
        refused: why, by a control's settings as JSON, those that do not apply here.
    """

    points: dict[str, HybridConfig]
    arms: tuple[ArmName, ...]
    tuning_seed: int
    tuning_trials: int
    seeds: list[int]
    min_quality: float
    refused: dict[str, str] = field(default_factory=dict)

    def run(self, runs: Runs) -> Iterator[Progress]:
        """Run what is not there yet; yield before each run. An arm that does not apply here is left out.

        Raises:
            UserError: the reference has the target loss before it is trained.
        """
        points, rounds = len(self.points), len(self.seeds) * TIMINGS
        tuned = self.tuning_trials * sum(arm in TUNED for arm in self.arms)
        each = sum(
            {**dict.fromkeys(LADDERS, len(MULTIPLIERS)), **dict.fromkeys(TUNED, 0)}.get(arm, 1)
            for arm in self.arms
        )
        total = 1 + tuned + points * (1 + each) + rounds * (1 + points * (1 + len(self.arms)))
        total += len(self.seeds) * points * (1 + len(self.arms))  # at equal wall clock
        for number, work in enumerate(self._work(runs)):
            if work is None:
                continue
            key, timing, config = work
            if len(runs.curves(key)) >= timing:
                continue
            yield Progress(number, total, _label(key))
            try:
                runs.add(key, config, test=key[2] != self.tuning_seed)
            except NotApplicable as error:
                self.refused[key[1]] = str(error)

    def _work(self, runs: Runs) -> Iterator[tuple[Key, int, HybridConfig | None] | None]:
        """Yield each run with the number of its timing; what comes later depends on those before.

        None stands for a run that turned out to be of no use.
        """
        yield ("", REFERENCE, self.tuning_seed), 1, None
        self._validate_target(runs)
        for point, config in self.points.items():
            yield (point, HYBRID, self.tuning_seed), 1, config
            for arm in self.arms:
                if self._tuned_on(point, arm) == point:
                    candidates = self._candidates(runs, point, arm)
                    for number, settings in enumerate(candidates):
                        further = arm in LADDERS and number >= len(FIRST_MULTIPLIERS)
                        if (
                            further
                            and self.controls(runs, point).get(arm) != candidates[_rung_before(number)]
                        ):
                            yield None
                        else:
                            yield (point, settings, self.tuning_seed), 1, None
        controls = {point: self.controls(runs, point).values() for point in self.points}
        for seed, timing in product(self.seeds, range(1, TIMINGS + 1)):
            yield ("", REFERENCE, seed), timing, None
            for point, config in self.points.items():
                yield (point, HYBRID, seed), timing, config
                for settings in controls[point]:
                    yield (point, settings, seed), timing, None
        for seed, point in product(self.seeds, self.points):
            for name in (REFERENCE, *self.controls(runs, point)):
                yield self._equal_time(runs, point, name, seed), 1, None

    def _validate_target(self, runs: Runs) -> None:
        """Refuse a bar so low, or a reference that learns so little, that there is no time to measure."""
        target, begins = self._target(runs, self.tuning_seed), _reference(runs, self.tuning_seed).val_loss[0]
        if target >= begins:
            raise UserError(
                f"min_quality={self.min_quality:g} sets a target loss of {target:.4g}, below which training "
                f"begins ({begins:.4g}): use a higher bar, or a workload whose held-out loss falls further"
            )

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
                (
                    found[0].backward_calls_to(target),
                    found[0].val_loss[-1],
                    json.loads(settings)["multiplier"] or 0.0,
                    settings,
                )
                for settings, found in curves.items()
                if found
            ]
            if tried:  # of equals, as of those that do not train at all, the smallest learning rate
                best[arm] = min(tried)[-1]
        return best

    def not_applicable(self, runs: Runs) -> dict[str, str]:
        """Return why, by name, the arms of which no settings apply to this recipe."""
        there = {arm for point in self.points for arm in self.controls(runs, point)}
        reasons = {json.loads(settings)["name"]: reason for settings, reason in self.refused.items()}
        return {arm: reason for arm, reason in reasons.items() if arm not in there}

    def tuned_on(self) -> int:
        """Return how many settings the tuned arms were really chosen from, of those that apply here."""
        refused = [json.loads(settings)["name"] for settings in self.refused]
        return self.tuning_trials - max(refused.count(arm) for arm in TUNED)

    def _equal_time(self, runs: Runs, point: str, arm: str, seed: int) -> Key:
        """Return the run of a control that is given as much training time as the hybrid took.

        Time becomes a number of real steps, at the pace at which the control was timed with this seed; the
        number is part of the run's settings, so that it is recorded. Of the reference it is the recipe,
        stopped there.
        """
        settings = REFERENCE if arm == REFERENCE else self.controls(runs, point)[arm]
        owner = "" if arm == REFERENCE else point
        control, hybrid = runs.curves((owner, settings, seed)), runs.curves((point, HYBRID, seed))
        ratio = median(c.seconds[-1] for c in hybrid) / median(c.seconds[-1] for c in control)
        steps = max(round(control[0].real_steps * ratio), 1)
        if arm in REPLAYED:
            steps = min(steps, runs.steps)
        own = ControlConfig(name="truncated") if arm == REFERENCE else ControlConfig(**json.loads(settings))
        return point, own.model_copy(update={"real_steps": steps}).model_dump_json(), seed

    def pairs(self, runs: Runs) -> pd.DataFrame:
        """Return one row a point, control and seed: `PAIR_COLUMNS`."""
        test = partial(_test, metric=metric_of(runs.workload))
        kind, rate = quality_of(runs.workload), start(runs.workload, 0).learning_rate
        rows, ends = (
            [],
            {
                "largest": MULTIPLIERS.index(LARGER_MULTIPLIERS[-1]),
                "smallest": MULTIPLIERS.index(SMALLER_MULTIPLIERS[-1]),
            },
        )
        for point in self.points:
            ladders = [self._candidates(runs, point, arm) for arm in self.arms if arm in LADDERS]
            outermost = {ladder[number]: end for ladder in ladders for end, number in ends.items()}
            arms = {
                REFERENCE: ("", REFERENCE),
                **{a: (point, c) for a, c in self.controls(runs, point).items()},
            }
            for arm, (owner, settings) in arms.items():
                what = (
                    "your recipe"
                    if arm == REFERENCE
                    else described(ControlConfig(**json.loads(settings)), rate)
                )
                for seed in self.seeds:
                    reference = _reference(runs, seed)
                    control, hybrid = runs.curves((owner, settings, seed)), runs.curves((point, HYBRID, seed))
                    target = self._target(runs, seed)
                    key = self._equal_time(runs, point, arm, seed)
                    as_long = runs.curves(key)[0]
                    gain = gained(kind, reference.val_loss, reference.val_metric)
                    rows.append(
                        {
                            "trial_id": point,
                            "arm": arm,
                            "what": what,
                            "outermost": outermost.get(settings, ""),
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
                            "quality": compared(kind, test(hybrid[0]), test(control[0]), gain),
                            "val_quality": compared(kind, _val(hybrid[0]), _val(control[0]), gain),
                            "equal_time_steps": json.loads(key[1])["real_steps"],
                            "equal_time_test_loss": as_long.test["loss"],
                            "equal_time_quality": compared(kind, test(hybrid[0]), test(as_long), gain),
                        }
                    )
        return pd.DataFrame(rows, columns=list(PAIR_COLUMNS))

    def _candidates(self, runs: Runs, point: str, arm: ArmName) -> list[str]:
        """Return the settings to choose from, as JSON."""
        m, config = jump_part(runs.hybrid(point, self.tuning_seed).trace)[2], self.points[point]
        match arm:
            case "lr_matched":
                tail = config.stop_fraction if config.tail == "average" else None
                arms = [ControlConfig(name=arm, multiplier=share * m, tail=tail) for share in MULTIPLIERS]
            case "lr":
                arms = [
                    ControlConfig(name=arm, multiplier=share * m, schedule_steps=runs.steps)
                    for share in MULTIPLIERS
                ]
            case "momentum":
                arms = [ControlConfig(name=arm, multiplier=m, schedule_steps=runs.steps)]
            case "tuned" | "schedule_free":
                arms = tuning_trials(arm, self.tuning_trials, self.tuning_seed)
            case _:
                arms = [ControlConfig(name=arm)]
        return [settings.model_dump_json(exclude={"real_steps"}) for settings in arms]

    def _target(self, runs: Runs, seed: int) -> float:
        return target_loss(quality_of(runs.workload), _reference(runs, seed), self.min_quality)

    def _tuned_on(self, point: str, arm: str) -> str:
        """Return the point at whose number of steps the arm's settings are chosen."""
        return next(iter(self.points)) if arm in TUNED else point


def _reference(runs: Runs, seed: int) -> Curve:
    return runs.curves(("", REFERENCE, seed))[0]


def _rung_before(number: int) -> int:
    """Return which of `MULTIPLIERS` has to be the best so far for the one with this number to be tried."""
    return 0 if MULTIPLIERS[number] == SMALLER_MULTIPLIERS[0] else number - 1


def target_loss(kind: str, reference: Curve, min_quality: float) -> float:
    """Return the validation loss at which the end of the reference run has a quality of `min_quality`.

    For "loss_ratio" it is its last loss / `min_quality`; for the other kinds, whose quality is no ratio of
    losses, its last loss + (1 - `min_quality`) of what it gained in its whole run.
    """
    first, last = reference.val_loss[0], reference.val_loss[-1]
    return last / min_quality if kind == "loss_ratio" else last + (1 - min_quality) * (first - last)


def described(arm: ControlConfig, recipe_rate: float) -> str:
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


def _test(curve: Curve, metric: str) -> tuple[float, float | None]:
    return curve.test["loss"], curve.test.get(metric)


def _val(curve: Curve) -> tuple[float, float | None]:
    return curve.val_loss[-1], curve.val_metric[-1] if curve.val_metric else None


def _label(key: Key) -> str:
    trial_id, arm, seed = key
    settings = {"name": arm} if arm in (REFERENCE, HYBRID) else json.loads(arm)
    name = settings["name"] + (" at equal wall clock" if settings.get("real_steps") else "")
    return f"{name.replace('_', ' ')} of {trial_id}, seed {seed}" if trial_id else f"{name}, seed {seed}"
