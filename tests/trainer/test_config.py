"""HybridConfig: the original's defaults and presets to the digit, its text forms, and what it refuses."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybrid_sweep.errors import UserError
from hybrid_sweep.trainer import PRESETS, HybridConfig, HybridTrainerConfig
from hybrid_sweep.trainer.config import EARLIER_VALUES
from hybrid_sweep.trainer.presets import preset, preset_for_loss, preset_for_size

OPEN_UNIT = st.floats(0, 1, exclude_min=True, exclude_max=True)
CONFIGS = st.builds(
    HybridConfig,
    warmup_steps=st.integers(1, 10**6),
    max_predict_steps=st.integers(1, 10**4),
    correction_interval=st.integers(0, 10**4),
    confidence_threshold=OPEN_UNIT,
    divergence_threshold=st.floats(0, 1e9, exclude_min=True),
    correct_steps=st.integers(0, 100),
    stop_fraction=st.floats(0, 1, exclude_max=True),
    cycle_mode=st.sampled_from(["original", "chained"]),
    predictor=st.sampled_from(["ema", "outer_momentum", "frozen"]),
    minimum_cosine=st.floats(-1, 1, exclude_max=True),
    predictor_seed=st.integers(-(2**31), 2**31),
)

FIELDS = (
    "warmup_steps",
    "full_steps",
    "max_predict_steps",
    "correction_interval",
    "confidence_threshold",
    "divergence_threshold",
)
SEED_VALUES = {
    "conservative_threshold_only": (100, 20, 50, 0, 0.85, 3.0),
    "balanced_threshold_only": (100, 20, 75, 15, 0.60, 3.0),
    "aggressive_threshold_only": (100, 20, 100, 20, 0.40, 3.0),
    "conservative": (200, 30, 50, 10, 0.85, 2.5),
    "balanced": (100, 20, 75, 15, 0.60, 3.0),
    "aggressive": (50, 10, 150, 25, 0.40, 4.0),
    "seed_optimal": (100, 20, 75, 15, 0.60, 2.2),
    "small": (50, 15, 50, 10, 0.70, 3.0),
    "medium": (100, 20, 75, 15, 0.60, 3.0),
    "large": (150, 25, 100, 20, 0.50, 3.0),
    "early": (200, 20, 50, 10, 0.80, 3.0),
    "mid": (100, 20, 75, 15, 0.60, 3.0),
    "late": (50, 20, 150, 25, 0.40, 3.0),
}


class TestDefaultsAndPresets:
    def test_defaults(self):
        config = HybridConfig()
        assert tuple(getattr(config, name) for name in FIELDS) == (100, 20, 80, 0, 0.85, 3.0)
        assert config.gradient_checkpointing is False

    @pytest.mark.parametrize("name", SEED_VALUES)
    def test_preset(self, name):
        assert PRESETS[name] == HybridConfig(**dict(zip(FIELDS, SEED_VALUES[name], strict=True)))

    def test_no_other_preset(self):
        assert set(PRESETS) == set(SEED_VALUES)

    def test_optimal_differs_from_balanced_in_divergence_threshold_alone(self):
        assert PRESETS["balanced"].replace(divergence_threshold=2.2) == PRESETS["seed_optimal"]

    def test_by_name(self):
        assert preset("late") is PRESETS["late"]
        with pytest.raises(
            UserError, match=r"unknown preset 'balancd' \(did you mean 'balanced'\?\); known: agg"
        ):
            preset("balancd")

    @pytest.mark.parametrize(
        ("parameters", "name"),
        [(1, "small"), (99_999_999, "small"), (10**8, "medium"), (10**9 - 1, "medium"), (10**9, "large")],
    )
    def test_by_size(self, parameters, name):
        assert preset_for_size(parameters) == PRESETS[name]

    @pytest.mark.parametrize(
        ("loss", "name"), [(2.3, "early"), (1.0, "mid"), (0.5, "mid"), (0.1, "mid"), (0.0999, "late")]
    )
    def test_by_loss(self, loss, name):
        assert preset_for_loss(loss) == PRESETS[name]

    def test_the_seeds_name(self):
        assert HybridTrainerConfig is HybridConfig


class TestBuilder:
    def test_micro_correction_config_builder(self):
        config = HybridConfig.builder().correction_interval(15).max_predict_steps(75).build()
        assert config == HybridConfig(correction_interval=15, max_predict_steps=75)

    def test_micro_correction_default_disabled(self):
        assert HybridConfig().correction_interval == 0
        assert HybridConfig.builder().build().correction_interval == 0

    @pytest.mark.parametrize("field", HybridConfig.model_fields)
    def test_every_field_has_a_call(self, field):
        value = getattr(HybridConfig(), field)
        assert getattr(HybridConfig.builder(), field)(value).build() == HybridConfig()

    def test_unknown_field(self):
        with pytest.raises(UserError, match=r"unknown configuration field 'warmup'.*warmup_steps"):
            HybridConfig.builder().warmup(10)

    def test_build_validates(self):
        builder = HybridConfig.builder().full_steps(0)
        with pytest.raises(UserError, match="full_steps=0"):
            builder.build()


class TestText:
    @given(CONFIGS)
    def test_json_and_toml_round_trip(self, config):
        assert HybridConfig.from_json(config.to_json()) == config
        assert HybridConfig.from_toml(config.to_toml()) == config

    def test_serialization_with_correction_interval(self):
        config = HybridConfig(correction_interval=15)
        assert "correction_interval = 15" in config.to_toml()
        assert HybridConfig.from_toml(config.to_toml()).correction_interval == 15

    def test_an_old_file_without_correction_interval(self):
        assert HybridConfig.from_toml("warmup_steps = 50\nconfidence_threshold = 0.6\n") == HybridConfig(
            warmup_steps=50, confidence_threshold=0.6
        )
        assert HybridConfig.from_json('{"max_predict_steps": 75}').correction_interval == 0

    @pytest.mark.parametrize("kind", ["toml", "json"])
    def test_files(self, tmp_path, kind):
        path = tmp_path / f"config.{kind}"
        path.write_text(getattr(PRESETS["aggressive"], f"to_{kind}")())
        assert HybridConfig.load(path) == HybridConfig.load(str(path)) == PRESETS["aggressive"]

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("config.yaml", b"", "a .toml or .json file"),
            ("missing.toml", None, "cannot be read"),
            ("binary.json", b"\xff\xfe\x00", "cannot be read"),
            ("torn.json", b'{"warmup_steps": 1', "not a JSON configuration"),
            ("list.json", b"[1, 2]", "expected key-value pairs"),
            ("torn.toml", b"warmup_steps =", "not a TOML configuration"),
            ("other.toml", b"warm = 1", "unknown key 'warm'"),
            ("bad.toml", b"warmup_steps = 0", "warmup_steps=0"),
        ],
    )
    def test_files_that_hold_none(self, tmp_path, name, content, message):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=message):
            HybridConfig.load(tmp_path / name)


class TestRefusing:
    def test_an_unknown_field(self):
        with pytest.raises(UserError, match=r"unknown key 'horizon'.*known: .*max_predict_steps"):
            HybridConfig(horizon=75)

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("warmup_steps", 0),
            ("warmup_steps", 10.5),
            ("warmup_steps", "many"),
            ("full_steps", -1),
            ("max_predict_steps", 0),
            ("max_predict_steps", True),
            ("correction_interval", -1),
            ("confidence_threshold", 0.0),
            ("confidence_threshold", 1.0),
            ("confidence_threshold", float("nan")),
            ("divergence_threshold", 0),
            ("divergence_threshold", float("inf")),
            ("correct_steps", -1),
            ("stop_fraction", 1.0),
            ("cycle_mode", "python"),
            ("predictor", "pythia"),
            ("tail", "mean"),
            ("velocity_decay", 1.0),
            ("minimum_cosine", 1.0),
            ("guard_tolerance", 1.0),
            ("predictor_hidden_size", 65),
            ("predictor_members", 0),
            ("gradient_checkpointing", "perhaps"),
        ],
    )
    def test_out_of_range(self, field, value):
        with pytest.raises(UserError, match=f"^{field}=.* is not allowed: "):
            HybridConfig(**{field: value})

    def test_the_message_names_the_range(self):
        with pytest.raises(UserError, match=r"confidence_threshold=1.5 .*\(allowed: > 0, < 1\)"):
            HybridConfig(confidence_threshold=1.5)

    def test_gradient_checkpointing_is_refused_in_a_sentence(self):
        with pytest.raises(UserError, match=r"^gradient_checkpointing=True is not available yet: [^.]*torch"):
            HybridConfig(gradient_checkpointing=True)
        assert HybridConfig.from_toml("gradient_checkpointing = false") == HybridConfig()

    def test_it_never_changes(self):
        with pytest.raises(ValueError, match="frozen"):
            HybridConfig().warmup_steps = 5

    def test_replace_validates_and_leaves_the_original(self):
        config = HybridConfig()
        assert config.replace(full_steps=7).full_steps == 7
        assert config.full_steps == 20
        with pytest.raises(UserError, match="full_steps"):
            config.replace(full_steps=0)


@pytest.mark.parametrize(("field", "names"), EARLIER_VALUES.items())
def test_a_value_by_its_earlier_name_is_the_one_of_today(field, names):
    for old, new in names.items():
        assert HybridConfig(**{field: old}) == HybridConfig(**{field: new})
        assert HybridConfig.from_json(json.dumps({field: old})).model_dump()[field] == new
    with pytest.raises(UserError, match=field):
        HybridConfig(**{field: "sead"})
