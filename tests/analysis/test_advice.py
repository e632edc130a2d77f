"""The original's debugging rules: each speaks of its symptom, and of nothing else."""

import json
import re

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybrid_sweep.analysis.advice import advice

HEALTHY = {
    "predict_phases": 20,
    "max_confidence": 0.95,
    "confidence_threshold": 0.85,
    "val_loss": 1.01,
    "reference_val_loss": 1.0,
    "warning_rate": 0.01,
    "speedup": 3.4,
    "backward_reduction_pct": 75.0,
    "realised_horizon_mean": 60.0,
    "max_predict_steps": 80,
    "correction_interval": 15,
    "config": json.dumps({"warmup_steps": 100, "full_steps": 20}),
}
SYMPTOMS = {
    "never predicts": {
        "predict_phases": 0,
        "max_confidence": 0.78,
        "backward_reduction_pct": 0.0,
        "speedup": 0.9,
    },
    "poor quality": {"val_loss": 1.05},
    "diverges": {"warning_rate": 0.08},
    "slow": {"speedup": 1.8, "backward_reduction_pct": 45.0, "realised_horizon_mean": 24.0},
}


def test_a_run_that_ends_before_it_could_predict_is_to_be_longer() -> None:
    short = {**HEALTHY, "predict_phases": 0, "max_confidence": 0.0, "steps": 120}
    (said,) = advice(short)
    assert "take 120 steps and the run has 120; train for more steps" in said
    assert "confidence_threshold" not in said


def test_no_threshold_is_advised_that_is_not_allowed() -> None:
    (said,) = advice({**HEALTHY, "predict_phases": 0, "max_confidence": 0.004, "steps": 121})
    assert said == "Predict never started: confidence reached 0.00 and the threshold is 0.85"


def test_where_no_decision_could_have_opened_the_gate_its_threshold_is_not_blamed() -> None:
    (said,) = advice({**HEALTHY, "predict_phases": 0, "max_confidence": float("nan"), "steps": 900})
    assert "minimum_cosine" in said and "confidence_threshold" not in said


def test_a_healthy_trial_gets_no_advice() -> None:
    assert advice(HEALTHY) == []
    assert advice(pd.Series(HEALTHY)) == []


@pytest.mark.parametrize(
    ("symptom", "says"),
    [
        ("never predicts", ["0.78", "0.85", "confidence_threshold to 0.5"]),
        ("poor quality", ["5.0 %", "max_predict_steps to 50", "correction_interval to 10"]),
        ("diverges", ["8.0 %", "warmup_steps to 200", "full_steps to 30", "learning rate"]),
        ("slow", ["24 of at most 80", "max_predict_steps to 100", "confidence_threshold to 0.5"]),
    ],
)
def test_a_symptom_gets_the_seeds_advice_and_no_other(symptom: str, says: list[str]) -> None:
    (sentence,) = advice({**HEALTHY, "speedup": 1.1, **SYMPTOMS[symptom]})
    assert all(word in sentence for word in says)


@pytest.mark.parametrize("reference", [-1.0, 0.0])
def test_a_loss_that_is_no_ratio_of_the_references_gets_no_advice(reference: float) -> None:
    assert advice({**HEALTHY, "val_loss": reference - 1, "reference_val_loss": reference}) == []


def test_just_inside_every_bound_there_is_no_symptom() -> None:
    edge = {"val_loss": 1.02, "warning_rate": 0.0499, "speedup": 2.9, "backward_reduction_pct": 60.0}
    assert advice({**HEALTHY, **edge}) == []


def test_what_is_so_already_is_not_advised() -> None:
    poor = {**HEALTHY, "val_loss": 1.05}
    assert "max_predict_steps" not in advice({**poor, "max_predict_steps": 50})[0]
    assert "correction_interval" not in advice({**poor, "correction_interval": 10})[0]
    assert advice({**poor, "max_predict_steps": 40, "correction_interval": 5}) == []
    slow = {**HEALTHY, **SYMPTOMS["slow"], "max_predict_steps": 150, "confidence_threshold": 0.4}
    assert advice(slow) == []
    late = {**HEALTHY, "warning_rate": 0.2, "config": json.dumps({"warmup_steps": 300, "full_steps": 30})}
    assert "raise" not in advice(late)[0]


def test_a_gate_that_nothing_reached_is_lowered_below_what_was_reached() -> None:
    shut = {**HEALTHY, **SYMPTOMS["never predicts"], "max_confidence": 0.318}
    assert "confidence_threshold to 0.31" in advice(shut)[0]


def test_a_gate_that_was_open_is_not_the_reason() -> None:
    (said,) = advice({**HEALTHY, **SYMPTOMS["never predicts"], "max_confidence": 0.9})
    assert "no decision was left to confidence alone" in said and "minimum_cosine" in said
    assert "confidence_threshold to" not in said


def test_the_highest_threshold_that_was_never_reached_is_told_of() -> None:
    shut = {**HEALTHY, **SYMPTOMS["never predicts"], "confidence_threshold": 0.98, "max_confidence": 0.97}
    assert advice(shut) == [
        "Predict never started: confidence reached 0.97 and the threshold is 0.98; "
        "lower confidence_threshold to 0.5"
    ]


def directions(sentences: list[str]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for way, name in re.findall(r"(raise|lower) (\w+) to", " ".join(sentences)):
        found.setdefault(name, set()).add(way)
    return found


@given(
    st.fixed_dictionaries(
        {
            "predict_phases": st.sampled_from([0, 5]),
            "max_confidence": st.floats(0, 0.99),
            "confidence_threshold": st.floats(0.01, 0.98),
            "val_loss": st.sampled_from([0.9, 1.5]),
            "warning_rate": st.sampled_from([0.0, 0.5]),
            "speedup": st.floats(0.5, 4),
            "backward_reduction_pct": st.floats(0, 90),
            "max_predict_steps": st.integers(1, 200),
            "correction_interval": st.sampled_from([0, 5, 15]),
            "steps": st.sampled_from([100, 400]),
        }
    )
)
def test_no_run_gets_opposite_advice(changes: dict[str, float]) -> None:
    assert all(len(ways) == 1 for ways in directions(advice({**HEALTHY, **changes})).values())


def test_of_two_symptoms_quality_is_told_before_speed() -> None:
    both = {**HEALTHY, **SYMPTOMS["poor quality"], **SYMPTOMS["slow"]}
    first, second = advice(both)
    assert "lower max_predict_steps to 50" in first
    assert "max_predict_steps" not in second and "lower confidence_threshold to 0.5" in second


def test_a_row_that_measured_nothing_gets_no_advice() -> None:
    assert advice({}) == []
    assert advice({name: float("nan") for name in HEALTHY if name != "config"}) == []


def test_a_counted_speedup_stands_in_for_a_wall_clock() -> None:
    row = {**HEALTHY, **SYMPTOMS["slow"], "speedup": None, "speedup_counted": 1.7}
    assert "1.70 times" in advice(row)[0]
