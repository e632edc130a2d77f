"""Controls: which runs without prediction a sweep has beside its points, and the ablations of its best."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hybrid_sweep import limits
from hybrid_sweep.control import ABLATION, ControlConfig, tuning_trials
from hybrid_sweep.errors import UserError
from hybrid_sweep.spec.sweep import SweepSpec

LADDER = (2.0, 3.0, 4.5, 6.0)
"""Speedups at which plain training is run: N/s real steps."""
TUNING_GAINS = (1.0, 2.0, 4.0)
"""Learning rates of the ladder, in multiples of the one that makes up for the steps left out: a jump whose
gates exceed 1 moves farther than those steps would have, and the best of these is what it must beat."""
ABLATIONS = ("frozen", "random", "sign_flipped", "shuffled", "oracle")
"""Predictors that show whether prediction matters, and what a perfect one would reach."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """A run beside the points of a sweep: its id, its arm, and the arm's settings with its real `steps`."""

    trial_id: str
    arm: str
    config: dict[str, Any]


def controls(spec: SweepSpec, steps: int, points: int) -> list[Control]:
    """Return the controls of a sweep of `points` points and `steps` logical steps.

    Raises:
        UserError: they are too many.
    """
    found: list[Control] = []
    if spec.controls == "none":
        return found
    for level in LADDER:
        budget = max(round(steps / level), 1)
        for suffix, arm in _arms(spec, steps / budget, steps, points):
            config = {**arm.model_dump(exclude_defaults=True), "steps": budget}
            found.append(Control(trial_id=f"{arm.name}_x{level:g}{suffix}", arm=arm.name, config=config))
    return found


def _arms(spec: SweepSpec, m: float, steps: int, points: int) -> Iterator[tuple[str, ControlConfig]]:
    """Yield the arms of one budget, which is 1/m of the run, with what tells equal names apart."""
    yield "", ControlConfig(name="truncated")
    for gain in TUNING_GAINS:
        suffix = "" if gain == 1 else f"_{gain:g}m"
        yield suffix, ControlConfig(name="lr", multiplier=gain * m, schedule_steps=steps)
    if spec.controls == "full":
        yield "", ControlConfig(name="momentum", multiplier=m, schedule_steps=steps)
        yield "", ControlConfig(name="average")
        tries = min(points, spec.tuning_trials or points)
        if tries > limits.TRIES:
            raise UserError(
                f"controls=full would tune each control and budget {tries:,} times, "
                f"and at most {limits.TRIES:,} are allowed: set tuning_trials to fewer"
            )
        for name in ("tuned", "schedule_free"):
            for number, arm in enumerate(tuning_trials(name, tries, spec.seed)):
                yield f"_{number:02d}", arm


def ablations(spec: SweepSpec, best: str, config: Mapping[str, Any]) -> list[Control]:
    """Return the runs of point `best`, whose settings are `config`, with other predictors."""
    if spec.controls != "full":
        return []
    return [
        Control(trial_id=f"{best}_{name}", arm=ABLATION, config={**config, "predictor": name})
        for name in ABLATIONS
        if name != config.get("predictor")
    ]
