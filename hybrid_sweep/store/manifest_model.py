"""What of a manifest is read: the model that the file has to fit, no matter who wrote it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr, field_validator

Number = Annotated[float, Field(allow_inf_nan=False)]
Count = Annotated[StrictInt, Field(ge=0, lt=2**63)]
Mapping = dict[str, Any]


class _Reference(BaseModel):
    """The point from which the hypervolume is measured."""

    speedup: Number = 1.0
    quality: Number = 0.90


class _Spec(BaseModel):
    """The sweep, as far as tables and pages read it; `resume` reads the whole by its own model."""

    model_config = ConfigDict(extra="allow")

    name: StrictStr | None = None
    space: Mapping | None = None
    repeats: Count | None = None
    trials: Count | None = None
    tuning_trials: Count | None = None
    steps: Count | None = None
    stop_when_flat: Count | None = None
    sampler: StrictStr | None = None
    timing: StrictStr | None = None
    compile: StrictStr | None = None
    controls: StrictStr | None = None
    storage: StrictStr | None = None
    workload: Mapping | StrictStr | None = None


class Manifest(BaseModel):
    """A manifest, as far as it is read; other fields are as they are, and none but `sweep_id` is needed."""

    model_config = ConfigDict(extra="allow")

    sweep_id: Annotated[StrictStr, Field(pattern=r"^[A-Za-z0-9_.-]{1,100}$")]
    format: StrictInt = 1
    created: StrictStr | None = None
    spec: _Spec | None = None
    seeds: list[Count] | None = None
    steps: Count | None = None
    budget: Count | None = None
    controls: Count | None = None
    hypervolume_reference: _Reference | None = None
    versions: Mapping | None = None
    hardware: Mapping | None = None
    git: Mapping | None = None
    pack: Mapping | None = None
    code: Mapping | None = None
    references: Mapping | None = None
    unit_costs: dict[str, Number | None] | None = None
    unit_costs_by_setting: dict[str, dict[str, Number | None]] | None = None
    control_step_ratios: dict[str, Number | None] | None = None
    keep_models: StrictStr | None = None
    unsaved: StrictStr | None = None
    quality: StrictStr | None = None

    @field_validator("created")
    @classmethod
    def is_a_moment(cls, value: str | None) -> str | None:
        """Return the moment, which is in ISO 8601.

        Raises:
            ValueError: it is not.
        """
        if value is not None:
            datetime.fromisoformat(value)
        return value
