"""Which runs a sweep has beside its points: a ladder of budgets, tuned arms, ablations of its best point."""

import pytest
from support.sweeps import sweep

from hybrid_sweep.control import ControlConfig, tuning_trials
from hybrid_sweep.search.controls import LADDER, TUNING_GAINS, ablations, controls


def arms(**settings):
    return controls(sweep(**settings), 900, points=7)


def test_none_has_none():
    assert arms(controls="none") == []
    assert ablations(sweep(controls="none"), "best", {"predictor": "ema"}) == []


def test_basic_is_plain_training_at_each_budget():
    found = arms()
    assert len(found) == len(LADDER) * (1 + len(TUNING_GAINS))
    assert [c.config for c in found if c.arm == "truncated"] == [
        {"name": "truncated", "steps": steps} for steps in (450, 300, 200, 150)
    ]
    (same,) = (c for c in found if c.trial_id == "lr_x3")
    assert same.config == {"name": "lr", "multiplier": 3.0, "schedule_steps": 900, "steps": 300}
    (higher,) = (c for c in found if c.trial_id == "lr_x3_4m")
    assert higher.config["multiplier"] == 12.0


def test_the_rate_makes_up_for_the_steps_that_are_really_left_out():
    (control,) = (c for c in controls(sweep(), 10, 1) if c.trial_id == "lr_x4.5")
    assert (control.config["steps"], control.config["multiplier"]) == (2, 5.0)


@pytest.mark.parametrize(("limit", "points", "expected"), [(5, 7, 5), (5, 3, 3), (None, 60, 60)])
def test_full_tunes_as_often_as_the_sweep_has_points_up_to_its_limit(limit, points, expected):
    found = controls(sweep(controls="full", tuning_trials=limit), 900, points)
    names = [c.arm for c in found]
    assert names.count("tuned") == names.count("schedule_free") == expected * len(LADDER)
    assert names.count("momentum") == names.count("average") == len(LADDER)
    drawn = [c.config for c in found if c.trial_id.startswith("tuned_x2_")]
    expected_arms = tuning_trials("tuned", expected, seed=0)
    assert [ControlConfig(**{k: v for k, v in c.items() if k != "steps"}) for c in drawn] == expected_arms


def test_every_id_is_its_own_and_every_config_an_arm():
    found = arms(controls="full")
    assert len({c.trial_id for c in found}) == len(found)
    for control in found:
        settings = dict(control.config)
        assert settings.pop("steps") >= 1
        assert ControlConfig(**settings).name == control.arm


def test_the_best_point_is_run_with_other_predictors():
    config = {"predictor": "ema", "max_predict_steps": 50}
    found = ablations(sweep(controls="full"), "H050", config)
    assert {c.config["predictor"] for c in found} == {
        "frozen",
        "random",
        "sign_flipped",
        "shuffled",
        "oracle",
    }
    assert all(c.arm == "ablation" and c.config["max_predict_steps"] == 50 for c in found)
    assert ablations(sweep(), "H050", config) == []
