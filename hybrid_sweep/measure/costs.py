"""Unit costs: seconds of each kind of work, measured once and frozen, so that speedups can be counted."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass, fields
from statistics import median

from hybrid_sweep.errors import UserError
from hybrid_sweep.measure.reference import hybrid_of, start
from hybrid_sweep.trainer.config import HybridConfig
from hybrid_sweep.trainer.cost_meter import Work
from hybrid_sweep.trainer.learning_rates import stateful
from hybrid_sweep.trainer.records import TrainingDiverged
from hybrid_sweep.trainer.train_step import TrainStep
from hybrid_sweep.workload import Workload

CYCLES = 16
WARM_UP_STEPS = 5
UNCOUNTED = 4
"""One cycle in so many, the first ones, warms up."""
SHARE_OF_REFERENCE = 0.05
"""Of the time of plain training, for all unit costs, and as much for the steps of controls."""
FREE_SECONDS = 1.0
"""Of measuring, where a share of plain training is less."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitCosts:
    """Seconds of one unit of each kind of work of a hybrid run.

    Attributes:
        batch: loading a batch.
        plain_step: a real step but for its batch: forward, loss, backward, clipping, optimizer, schedule.
        observe: what the trainer adds to a real step.
        update: learning and deciding at the end of a Full phase.
        checkpoint: what comes before the jumps of a Predict phase.
        jump: one update of the weights.
        forward: a forward pass without backward.
        score: what the trainer adds to such a pass.
    """

    batch: float
    plain_step: float
    observe: float
    update: float
    checkpoint: float
    jump: float
    forward: float
    score: float

    @property
    def real_step(self) -> float:
        """Seconds of a plain step with the loading of its batch."""
        return self.batch + self.plain_step

    def to_dict(self) -> dict[str, float]:
        """Return plain data."""
        return asdict(self)

    def prices(self) -> dict[Work, float]:
        """Return the seconds of a unit of each kind of work."""
        seconds = self.to_dict()
        return {kind: seconds[field] for kind, field in FIELD_OF.items()}

    def total(self, calls: Mapping[Work, int]) -> float:
        """Return the seconds that `calls` units of each kind of work cost."""
        prices = self.prices()
        return sum(calls[kind] * prices[kind] for kind in Work)


FIELD_OF = {kind: str(kind) for kind in Work} | {Work.PLAIN: "plain_step"}
"""The field of `UnitCosts` that holds the cost of each kind of work."""
COST_NAMES = tuple(field.name for field in fields(UnitCosts))


def seconds_allowed(steps: int, a_step: float) -> float:
    """Return how long measuring may take beside a run of `steps` plain steps of `a_step` seconds."""
    return max(FREE_SECONDS, SHARE_OF_REFERENCE * steps * a_step)


def measure_unit_costs(
    workload: Workload, seed: int, config: HybridConfig, steps: int | None = None, share: float = 1.0
) -> UnitCosts:
    """Time every kind of work in a short hybrid run with the trial's own predictor.

    Every kind is measured in every one of 16 cycles, or fewer where a step takes long, so that a busy moment
    of the machine touches all of them alike; the median over the cycles is taken of each.

    Args:
        workload: what to train.
        seed: of model and data order.
        config: the trainer's settings.
        steps: N of the run whose time bounds that of measuring; None measures all cycles.
        share: of the seconds that are allowed then.

    Raises:
        UserError: the run diverges before every kind of work has been measured.
    """
    plain = start(workload, seed)
    always = config.replace(
        warmup_steps=WARM_UP_STEPS,
        horizon_rule="fixed",
        correction_interval=0,
        correct_steps=max(config.correct_steps, 1),
        confidence_threshold=0.001,
        minimum_cosine=-1.0,
        guard_tolerance=1e9,
        stop_fraction=0.0,
    )
    trainer = hybrid_of(plain, always)
    rewind = _rewind(trainer.plain)
    fresh = {name: value.clone() for name, value in plain.model.state_dict().items()}
    far = CYCLES * (always.max_predict_steps + always.full_steps + 200)
    seen: dict[Work, list[float]] = {kind: [] for kind in Work}
    seconds, calls = trainer.meter.seconds(), dict(trainer.meter.calls)
    began = time.monotonic()
    for cycle in range(1, CYCLES + 1):
        plain.model.load_state_dict(fresh)  # blind jumps in a row would leave every valley
        rewind()  # nor is a schedule driven past its end
        try:
            trainer.run_cycle(lambda step: workload.batch(seed, (step - 1) % workload.steps + 1), far)
        except TrainingDiverged:
            break
        now, counted = trainer.meter.seconds(), dict(trainer.meter.calls)
        for kind in Work:
            if counted[kind] > calls[kind]:
                seen[kind].append((now[kind] - seconds[kind]) / (counted[kind] - calls[kind]))
        seconds, calls = now, counted
        took, a_step = time.monotonic() - began, _a_step(now, counted)
        if steps is not None and took * (1 + 1 / cycle) > share * seconds_allowed(steps, a_step):
            break
    if missing := [FIELD_OF[kind] for kind in Work if not seen[kind]]:
        raise UserError(
            f"unit costs of {', '.join(missing)} cannot be measured: the run diverges at once; "
            "lower the learning rate or max_predict_steps, or give unit_costs in the sweep file"
        )
    return UnitCosts(**{field: _typical(seen[kind]) for kind, field in FIELD_OF.items()})


def _a_step(seconds: Mapping[Work, float], calls: Mapping[Work, int]) -> float:
    """Return the mean seconds of a plain step and its batch."""
    return sum(seconds[kind] for kind in (Work.PLAIN, Work.BATCH)) / max(calls[Work.PLAIN], 1)


def _typical(seconds: list[float]) -> float:
    """Return the median, without the first cycles."""
    return median(seconds[len(seconds) // UNCOUNTED :])


def _rewind(plain: TrainStep) -> Callable[[], None]:
    """Return what puts the schedule, and the optimizer's settings with it, back to where they are now."""
    if plain.scheduler is None:
        return lambda: None
    schedule, groups = stateful(plain.scheduler), plain.optimizer.param_groups
    state, own = deepcopy(schedule.state_dict()), plain.state_dict()
    settings = [{name: value for name, value in group.items() if name != "params"} for group in groups]

    def rewind() -> None:
        schedule.load_state_dict(deepcopy(state))
        for group, before in zip(plain.optimizer.param_groups, settings, strict=True):
            group.update(before)
        plain.load_state_dict(own)

    return rewind
