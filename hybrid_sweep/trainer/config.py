"""HybridConfig: every setting of the hybrid trainer, its presets, and their JSON and TOML form."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import tomli_w
from pydantic import Field, model_validator

from hybrid_sweep.errors import Settings, UserError, Whole, unknown_name
from hybrid_sweep.limits import STEPS
from hybrid_sweep.paths import text_of, user_path

Count = Annotated[int, Whole, Field(ge=0, le=STEPS, strict=True)]
Positive = Annotated[int, Whole, Field(ge=1, le=STEPS, strict=True)]
OpenUnit = Annotated[float, Field(gt=0, lt=1)]


EARLIER_VALUES = {
    "cycle_mode": {"seed": "original", "rust": "chained"},
    **{
        name: {"seed": "original"} for name in ("horizon_rule", "gates", "divergence_rule", "confidence_rule")
    },
}
"""What values of settings were called before, by setting: files of that time are read."""


def current_value(field: str, value: Any) -> Any:
    """Return a value of a setting by its present name."""
    names = EARLIER_VALUES.get(field, {})
    return names.get(value, value) if isinstance(value, str) else value


def current_values(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with their values by their present names."""
    return {field: current_value(field, value) for field, value in config.items()}


class HybridConfig(Settings):
    """Settings of one hybrid training run; defaults are the original's where it names one.

    Attributes:
        warmup_steps: real steps before anything else; they set the baselines.
        full_steps: real steps of one Full phase.
        max_predict_steps: H, the longest horizon of one Predict phase, in logical steps.
        correction_interval: I, logical steps between micro-corrections in Predict; 0 switches them off.
        correction_schedule: "fixed" keeps I; "adaptive" lets it range over [I/2, 2·I] by prediction errors.
        confidence_threshold: a Predict phase starts only at or above this confidence.
        divergence_threshold: standard deviations of one batch's loss that count as divergence: of the
            smoothed loss on real steps, of a probe or a Correct phase above the level before the jump.
        correct_steps: forward-only logical steps after a Predict phase.
        stop_fraction: share of the run, at its end, that is never predicted.
        tail: "average" puts the mean of the weights over that share into the model at the end of the run.
        cycle_mode: "original" goes Correct → Full; "chained" may predict again, up to five times.
        horizon_rule: "original" shrinks H by confidence² and repetition; "fixed" takes H as it is.
        predictor: where the displacement of a jump comes from (`trainer/predictors/`); "frozen", "random",
            "sign_flipped", "shuffled" and "oracle" are controls.
        velocity_decay: β of the EMA of real updates (or of Full-phase displacements).
        gates: "learned" scales a jump by the weight-delta head, "original" by its clamp, "off" by one.
        minimum_cosine: no jump while successive cycles' velocities agree less than this.
        guard_tolerance: a probe ends a jump only above this multiple of the loss before it (and above
            `divergence_threshold`), so that where there is no noise not every rise does.
        divergence_rule: "calibrated" signals stay quiet on plain noise; "original" is the literal rule.
        force_full_steps: real steps that a warning enforces.
        max_rollbacks: a run that needs more is declared diverged.
        checkpoint_interval: real steps from one checkpoint to the next where no jump makes one; each costs
            up to a plain step.
        confidence_rule: "three_term" is normalised by the scale of the loss; "original" is 0.7/0.3 stability.
        calibration: "binned" and "isotonic" correct the confidence by how often it has been right.
        predictor_hidden_size: width of RSSM-lite's deterministic state.
        predictor_members: ensemble size of RSSM-lite.
        bptt_steps: k, steps back through which RSSM-lite's GRU learns from each prediction error.
        predictor_seed: seed of RSSM-lite's own random numbers.
        gradient_checkpointing: reserved; only False is accepted so far.
    """

    warmup_steps: Positive = 100
    full_steps: Positive = 20
    max_predict_steps: Annotated[int, Whole, Field(ge=1, le=1_000_000, strict=True)] = 80
    correction_interval: Count = 0
    correction_schedule: Literal["fixed", "adaptive"] = "fixed"
    confidence_threshold: OpenUnit = 0.85
    divergence_threshold: Annotated[float, Field(gt=0)] = 3.0
    correct_steps: Count = 5
    stop_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.05
    tail: Literal["stop", "average"] = "stop"
    cycle_mode: Literal["original", "chained"] = "original"
    horizon_rule: Literal["original", "fixed"] = "original"
    predictor: Literal[
        "ema",
        "ema_nesterov",
        "outer_momentum",
        "outer_nesterov",
        "optimizer_replay",
        "dmd",
        "rre",
        "frozen",
        "random",
        "sign_flipped",
        "shuffled",
        "oracle",
    ] = "ema"
    velocity_decay: OpenUnit = 0.97
    gates: Literal["learned", "original", "off"] = "learned"
    minimum_cosine: Annotated[float, Field(ge=-1, lt=1)] = -0.7
    guard_tolerance: Annotated[float, Field(gt=1)] = 1.25
    divergence_rule: Literal["calibrated", "original"] = "calibrated"
    force_full_steps: Positive = 50
    max_rollbacks: Count = 3
    checkpoint_interval: Positive = 100
    confidence_rule: Literal["three_term", "original"] = "three_term"
    calibration: Literal["none", "binned", "isotonic"] = "binned"
    predictor_hidden_size: Annotated[int, Whole, Field(ge=1, le=64, strict=True)] = 32
    predictor_members: Annotated[int, Whole, Field(ge=1, le=8, strict=True)] = 1
    bptt_steps: Positive = 3
    predictor_seed: Annotated[int, Whole, Field(strict=True)] = 0
    gradient_checkpointing: bool = False

    @model_validator(mode="before")
    @classmethod
    def _in_words_of_today(cls, values: Any) -> Any:
        return current_values(values) if isinstance(values, dict) else values

    @model_validator(mode="after")
    def _validate_built(self) -> Self:
        if self.gradient_checkpointing:
            raise ValueError(
                "gradient_checkpointing=True is not available yet: leave it False, "
                "or wrap your layers in torch.utils.checkpoint yourself"
            )
        return self

    @classmethod
    def builder(cls) -> ConfigBuilder:
        """Start a fluent builder: `HybridConfig.builder().warmup_steps(50).build()`."""
        return ConfigBuilder()

    def replace(self, **changes: Any) -> HybridConfig:
        """Return a validated copy with `changes`."""
        return HybridConfig(**{**self.model_dump(), **changes})

    def to_json(self, *, indent: int | None = 2) -> str:
        """Return the whole configuration as a JSON object, with `indent=None` in one line."""
        return json.dumps(self.model_dump(), indent=indent)

    @classmethod
    def from_json(cls, text: str) -> HybridConfig:
        """Read a JSON object; a field that is not there takes its default."""
        return cls._from_text(text, json.loads, json.JSONDecodeError, "JSON")

    def to_toml(self) -> str:
        """Return the whole configuration as a TOML document."""
        return tomli_w.dumps(self.model_dump())

    @classmethod
    def from_toml(cls, text: str) -> HybridConfig:
        """Read a TOML document; a field that is not there takes its default."""
        return cls._from_text(text, tomllib.loads, tomllib.TOMLDecodeError, "TOML")

    @classmethod
    def load(cls, path: str | Path) -> HybridConfig:
        """Read a `.toml` or `.json` file.

        Raises:
            UserError: where the file is missing, of another kind, or does not hold a configuration.
        """
        path = user_path(path)
        readers = {".toml": cls.from_toml, ".json": cls.from_json}
        if path.suffix not in readers:
            raise UserError(f"{path}: a configuration is a .toml or .json file; rename it or export one")
        try:
            text = text_of(path)
        except (OSError, ValueError) as error:
            raise UserError(f"{path} cannot be read as a configuration: {error}") from None
        return readers[path.suffix](text)

    @classmethod
    def _from_text(cls, text: str, parse: Any, failure: type[Exception], kind: str) -> HybridConfig:
        try:
            values = parse(text)
        except failure as error:
            raise UserError(f"not a {kind} configuration: {error}; export one to see the form") from None
        if not isinstance(values, dict):
            raise UserError(f"not a {kind} configuration: expected key-value pairs, got {values!r}")
        return cls(**values)


HybridTrainerConfig = HybridConfig
"""The original's name for `HybridConfig`."""


class ConfigBuilder:
    """The original's fluent form: one call a field, then `build()`, which validates."""

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name not in HybridConfig.model_fields:
            raise unknown_name("configuration field", name, sorted(HybridConfig.model_fields))

        def set_field(value: Any) -> ConfigBuilder:
            self._values[name] = value
            return self

        return set_field

    def build(self) -> HybridConfig:
        """Return the validated configuration."""
        return HybridConfig(**self._values)
