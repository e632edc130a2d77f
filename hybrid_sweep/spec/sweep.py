"""SweepSpec: a sweep file as typed, validated values, and where sweep files are found."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from hybrid_sweep import limits
from hybrid_sweep.errors import Section, Settings, Whole, unknown_name, whole
from hybrid_sweep.paths import FolderName
from hybrid_sweep.spec.axes import (
    Axis,
    condition,
    in_current_values,
    in_whole_numbers,
    samples_of,
    validate_conditions,
    values_of,
)
from hybrid_sweep.trainer.config import HybridConfig, current_values
from hybrid_sweep.trainer.presets import PRESETS

DEFAULT_TRIALS = 50
Cost = Annotated[float, Field(ge=0)]


class WorkloadChoice(Section):
    """Which workload is trained: an import string, and any keyword of its class beside it."""

    model_config = ConfigDict(extra="allow")

    name: str

    @property
    def keywords(self) -> dict[str, Any]:
        """What the class is called with."""
        return dict(self.model_extra or {})


class UnitCosts(Section):
    """Seconds of each kind of work, for `speedup_counted`; given here they are not measured."""

    plain_step: Annotated[float, Field(gt=0)]
    batch: Cost
    observe: Cost
    update: Cost
    checkpoint: Cost
    jump: Cost
    forward: Cost
    score: Cost


class ReferencePoint(Section):
    """The corner from which a hypervolume is counted."""

    speedup: Cost = 1.0
    quality: Cost = 0.90

    @property
    def pair(self) -> tuple[float, float]:
        """`(speedup, quality)`."""
        return self.speedup, self.quality


class Constraints(Section):
    """What a good point must keep to; one that does not is never preferred by the sampler.

    Attributes:
        min_quality: least mean quality.
        max_divergence_rate: greatest share of a run's steps with a warning; a diverged run has 1.
        max_memory_ratio: greatest peak GPU memory over that of plain training.
    """

    min_quality: float | None = Field(None, ge=0)
    max_divergence_rate: float | None = Field(None, ge=0, le=1)
    max_memory_ratio: float | None = Field(None, gt=0)


class Mask(Section):
    """What is expected of the workload when points are refused whose jumps cannot be stable.

    With gates off, quality on the bundled digits falls below 0.95 between the computed bound and twice that;
    learned gates shorten a jump that is too long, and it falls below 0.9 beyond about twice the bound.

    Attributes:
        eta_lambda: largest learning rate × curvature, where 2 is the edge of stability; None measures it
            along plain training before the first trial.
        learned_gate: smallest factor that learned gates are trusted to make of a jump.
    """

    eta_lambda: float | None = Field(None, gt=0, lt=2)
    learned_gate: float = Field(0.5, gt=0, le=1)


class EarlyStopping(Section):
    """Asynchronous successive halving by Pareto rank, at rungs of equal logical step.

    Attributes:
        reduction: of the runs that reach a rung, one in this many goes on (eta).
        first_rung: share of the steps at which the first rung stands; each next one is `reduction` times
            further.
    """

    reduction: float = Field(3.0, ge=1.1)
    first_rung: float = Field(1 / 9, gt=0, lt=1)


def _workload_section(value: Any) -> Any:
    if isinstance(value, str):
        return {"name": value}
    if not isinstance(value, Mapping | WorkloadChoice):
        raise ValueError("write package.module:Class, or `name:` with it and the keywords of the class")
    return value


def _pack_size(value: Any) -> Any:
    value = whole(value)
    if value != "auto" and (isinstance(value, bool) or value not in range(1, limits.WORKERS + 1)):
        raise ValueError(f"write a whole number, at most {limits.WORKERS} and at least 1, or auto")
    return value


def _file_name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", value):
        raise ValueError(
            "it becomes part of a folder's name: 100 letters and digits at most, and _ . - after the first"
        )
    return value


class SweepSpec(Settings):
    """One sweep: what is trained, for how long, and every setting that is tried.

    Attributes:
        name: becomes part of the results folder's name.
        about: one sentence for `hybrid-sweep list`.
        workload: what is trained.
        steps: logical steps of a run; None takes the workload's own.
        metric: what `evaluate` returns that is compared instead of the loss; None takes the workload's.
        mode: whether a larger (max) or a smaller (min) metric is better; None takes the workload's, else max.
        max_grad_norm: total norm to which gradients of every arm are clipped; None takes the workload's.
        seed: the first seed.
        repeats: how many consecutive seeds each point is run with.
        trainer: fields of `HybridConfig` that every trial shares.
        space: fields of `HybridConfig` with what to try: a list of values, `{low, high, step, log}`, or
            `{values}`; the last two may say `when: {other_field: [value]}`.
        sampler: who chooses the points; `grid` takes every combination.
        trials: points in all; None is the whole grid, or 50 of another sampler.
        presets: names of presets that are tried first; what a preset names wins over `trainer`.
        points: points that are tried next, each as fields of `HybridConfig`.
        constraints: what the sampler is taught to avoid.
        mask: which points of a sampler are refused as unstable before they cost anything; None refuses none.
            A grid, a preset and a point that is given are never masked.
        early_stopping: whether and how hopeless runs are stopped; None lets all of them end.
        stop_when_flat: the sweep ends when the hypervolume has not grown over this many points.
        storage: Optuna storage URL that mirrors the study; None is a journal file in the results folder.
        warm_start: earlier results folders of the same workload, whose points the sampler learns from and
            which are not run again.
        max_retries: how often a run is tried again after its worker was lost.
        trial_timeout: seconds of silence that end a worker; "auto" is 20 times the reference's, at least 900,
            and 3600 of what precedes the runs.
        checkpoint_seconds: wall clock between checkpoints of a run, from which a retry goes on.
        device: "auto" takes CUDA where there is one.
        compile: `torch.compile` of the loss, for every arm, the reference too: its mode "default", or
            "reduce-overhead", which is CUDA graphs on a GPU. The workers compile before anything is timed.
        concurrency: trials at once; None is one a CPU core, or one a GPU share.
        gpus_per_trial: share of one GPU that a trial on CUDA takes; with `pack`, that a worker takes.
        pack: trials of a worker that are trained at once, their real steps fused; "auto" measures what is
            fastest. Their speedup is that of counted work, since no time is one trial's own.
        timing: which speedup the front is made of, wall clock or counted work.
        eval_every: logical steps between evaluations of the reference run and the controls.
        report_every: logical steps between the reports of a trial, each of which evaluates its model: it
            makes one at the end of the first cycle that has come to the next multiple. 1 reports every cycle.
        unit_costs: frozen seconds of each kind of work; None measures them with the reference run.
        controls: what is compared with the hybrid: "basic" holds each trial against the same real steps at
            a scaled learning rate and against jumps that stand still, and runs plain training at several
            budgets; "full" adds momentum, averaging, tuned optimizers and other predictors; "none" nothing.
        share: whether references, controls and twins that an earlier sweep has trained are taken from the
            cache, and those of this sweep kept there; and whether what several configurations have in common
            is trained once.
        tuning_trials: the most tuning trials of a tuned control and budget; None gives it as many as the
            sweep has points.
        hypervolume_reference: the corner of the hypervolume.
    """

    name: Annotated[str, AfterValidator(_file_name)]
    about: str = ""
    workload: Annotated[WorkloadChoice, BeforeValidator(_workload_section)]
    steps: Annotated[int | None, Whole] = Field(None, ge=1, le=limits.STEPS, strict=True)
    metric: str | None = None
    mode: Literal["min", "max"] | None = None
    max_grad_norm: float | None = Field(None, gt=0)
    seed: Annotated[int, Whole] = Field(0, ge=0, lt=2**63, strict=True)
    repeats: Annotated[int, Whole] = Field(1, ge=1, le=limits.SEEDS, strict=True)
    trainer: dict[str, Any] = Field(default_factory=dict)
    space: dict[str, Axis] = Field(default_factory=dict)
    sampler: Literal["tpe", "gp", "nsga2", "random", "grid"] = "tpe"
    trials: Annotated[int | None, Whole] = Field(None, ge=1, le=limits.POINTS, strict=True)
    presets: list[str] = Field(default_factory=list, max_length=limits.FOLDERS)
    points: list[dict[str, Any]] = Field(default_factory=list, max_length=limits.POINTS)
    constraints: Constraints = Field(default_factory=lambda: Constraints.model_validate({}))
    mask: Mask | None = Field(default_factory=lambda: Mask.model_validate({}))
    early_stopping: EarlyStopping | None = None
    stop_when_flat: Annotated[int | None, Whole] = Field(None, ge=2, strict=True)
    storage: str | None = None
    warm_start: list[FolderName] = Field(default_factory=list, max_length=limits.FOLDERS)
    max_retries: Annotated[int, Whole] = Field(3, ge=0, strict=True)
    trial_timeout: Annotated[float, Field(gt=0, allow_inf_nan=False)] | Literal["auto"] | None = "auto"
    checkpoint_seconds: float = Field(30.0, gt=0)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    compile: Literal["none", "default", "reduce-overhead"] = "none"
    concurrency: Annotated[int | None, Whole] = Field(None, ge=1, le=limits.WORKERS, strict=True)
    gpus_per_trial: float = Field(1.0, gt=0, le=1)
    pack: Annotated[int | Literal["auto"], BeforeValidator(_pack_size)] = 1
    timing: Literal["measured", "counted"] = "measured"
    eval_every: Annotated[int, Whole] = Field(25, ge=1, strict=True)
    report_every: Annotated[int, Whole] = Field(1, ge=1, strict=True)
    unit_costs: UnitCosts | None = None
    controls: Literal["none", "basic", "full"] = "basic"
    share: bool = True
    tuning_trials: Annotated[int | None, Whole] = Field(None, ge=1, le=limits.POINTS, strict=True)
    hypervolume_reference: ReferencePoint = ReferencePoint()

    @property
    def seeds(self) -> list[int]:
        """Every seed that each point is run with."""
        return list(range(self.seed, self.seed + self.repeats))

    def budget(self, grid_size: int) -> int:
        """Return how many points are asked in all, where the full grid has `grid_size`."""
        if self.sampler == "grid":
            return min(self.trials or grid_size, grid_size)
        return self.trials or DEFAULT_TRIALS

    @property
    def speedup_column(self) -> Literal["speedup", "speedup_counted"]:
        """The column of the results that the front is made of."""
        return "speedup_counted" if self.timing == "counted" else "speedup"

    @field_validator("trainer", mode="after")
    @classmethod
    def _trainer_in_words_of_today(cls, trainer: dict[str, Any]) -> dict[str, Any]:
        return current_values(trainer)

    @field_validator("points", mode="after")
    @classmethod
    def _points_in_words_of_today(cls, points: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [current_values(point) for point in points]

    @field_validator("space")
    @classmethod
    def _whole_where_the_setting_is(cls, space: dict[str, Any]) -> dict[str, Any]:
        space = {name: in_current_values(axis, name) for name, axis in space.items()}
        counts = [name for name, field in HybridConfig.model_fields.items() if field.annotation is int]
        return {
            name: in_whole_numbers(axis, name) if name in counts else axis for name, axis in space.items()
        }

    @model_validator(mode="after")
    def _settings_of_the_trainer(self) -> Self:
        known = sorted(HybridConfig.model_fields)
        for section in (self.trainer, self.space, *self.points):
            for field in section:
                if field not in known:
                    raise unknown_name("trainer setting", field, known)
        for name in self.presets:
            if name not in PRESETS:
                raise unknown_name("preset", name, sorted(PRESETS))
        for field in self.space:
            if field in self.trainer:
                raise ValueError(
                    f"{field} stands both in trainer and in space: keep one (space.{field}=[value] fixes it)"
                )
        return self

    @model_validator(mode="after")
    def _fields_go_together(self) -> Self:
        if self.seed > (last := 2**63 - self.repeats):
            raise ValueError(f"seed={self.seed} is too large for repeats={self.repeats}: at most {last}")
        if self.compile != "none" and self.pack != 1:
            raise ValueError(
                f"compile={self.compile} and pack={self.pack} do not go together, for a compiled loss cannot "
                "be mapped over many models: take compile=none or pack=1"
            )
        return self

    @model_validator(mode="after")
    def _space_can_be_searched(self) -> Self:
        validate_conditions(self.space)
        for field, axis in self.space.items():
            if self.sampler == "grid" and (values_of(axis) is None or condition(axis)):
                raise ValueError(
                    f"space.{field} is no plain list, so it has no grid: list its values, "
                    "or take sampler: tpe, gp, nsga2 or random"
                )
            beside = {other: allowed[0] for other, allowed in condition(axis).items()}
            for value in samples_of(axis):
                HybridConfig(**{**self.trainer, **beside, field: value})
        for point in self.points:
            HybridConfig(**{**self.trainer, **point})
        return self
