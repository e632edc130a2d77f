"""Points that cannot be stable cost nothing, are counted, and change no other point that is asked."""

import random

import pytest
from support.sweeps import SPACE, STEPS, Session, sweep

from hybrid_sweep.errors import UserError
from hybrid_sweep.search.mask import (
    WORST_CASE,
    unstable,
    validate_mask,
    wants_curvature,
    with_curvature,
)
from hybrid_sweep.search.replay import replay
from hybrid_sweep.search.study import Study
from hybrid_sweep.spec.sweep import Mask
from hybrid_sweep.trainer.stability import max_stable_ratio

MASK = Mask.model_validate({})
WIDE = {
    "max_predict_steps": {"low": 20, "high": 600},
    "full_steps": {"low": 5, "high": 40},
    "velocity_decay": {"low": 0.8, "high": 0.99},
    "gates": ["off", "learned"],
}
HOPELESS = {"max_predict_steps": {"low": 400, "high": 600}, "full_steps": [5, 10], "gates": ["off"]}


def point(**config):
    return {"full_steps": 20, "gates": "off", "horizon_rule": "fixed", **config}


@pytest.mark.parametrize("predictor", ["ema", "outer_momentum", "outer_nesterov"])
def test_with_gates_off_the_bound_is_the_predictors(predictor):
    bound = 20 * max_stable_ratio(predictor, 0.97, 20)
    assert not unstable(MASK, point(predictor=predictor, max_predict_steps=int(bound * 0.98)))
    assert unstable(MASK, point(predictor=predictor, max_predict_steps=int(bound * 1.05)))


def test_learned_gates_may_go_twice_as_far_and_the_adaptive_horizon_counts():
    assert unstable(MASK, point(max_predict_steps=150))
    assert not unstable(MASK, point(max_predict_steps=150, gates="learned"))
    assert unstable(MASK, point(max_predict_steps=170, gates="learned"))
    assert unstable(Mask(eta_lambda=1.5, learned_gate=1), point(max_predict_steps=150, gates="learned"))
    assert unstable(MASK, point(max_predict_steps=80))
    assert not unstable(MASK, point(max_predict_steps=80, horizon_rule="original"))  # 78 at most


def test_the_edge_of_stability_matters_for_short_full_phases():
    short = point(full_steps=5, velocity_decay=0.9, max_predict_steps=20)
    assert not unstable(MASK, short)
    assert unstable(Mask(eta_lambda=1.95, learned_gate=0.5), short)


def test_a_measured_curvature_below_the_worst_case_lets_longer_jumps_through():
    config = point(full_steps=5, velocity_decay=0.9, max_predict_steps=30)
    spec = sweep()
    assert unstable(spec.mask, config)
    masked, said = with_curvature(spec, [0.02, 0.05, 0.01])
    assert masked.mask.eta_lambda == 0.05
    assert not unstable(masked.mask, config)
    assert said == "η·λ_max along plain training is 0.05 (2 is the edge of stability), which the mask takes"


def test_beyond_the_edge_the_mask_takes_the_steepest_that_trains():
    masked, said = with_curvature(sweep(), [0.5, 2.7])
    assert masked.mask.eta_lambda == 1.95
    assert said.endswith("is 2.7 (2 is the edge of stability); the mask takes 1.95")
    flat, _ = with_curvature(sweep(), [-0.1, 0.0])
    assert flat.mask.eta_lambda == 0.001


def test_what_cannot_be_measured_is_the_worst_case_and_says_so():
    masked, said = with_curvature(sweep(mask={"learned_gate": 0.7}), [], "no second derivative")
    assert (masked.mask.eta_lambda, masked.mask.learned_gate) == (WORST_CASE, 0.7)
    assert said == (
        "η·λ_max cannot be measured (no second derivative): the mask takes the worst case, 1.5; "
        "mask.eta_lambda sets another"
    )


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({}, True),
        ({"mask": {"eta_lambda": 1.2}}, False),
        ({"mask": None}, False),
        ({"sampler": "grid", "space": {"max_predict_steps": [10, 20]}}, False),
        ({"space": {}, "points": [{"max_predict_steps": 10}]}, False),
        ({"trainer": {"predictor": "dmd"}}, False),
        ({"space": {**SPACE, "predictor": ["dmd", "rre"]}}, False),
        ({"space": {**SPACE, "predictor": ["dmd", "ema"]}}, True),
    ],
)
def test_curvature_is_measured_only_where_a_point_may_be_masked_by_it(settings, wanted):
    assert wants_curvature(sweep(**settings)) == wanted


@pytest.mark.parametrize(
    "predictor", ["dmd", "rre", "optimizer_replay", "frozen", "random", "sign_flipped", "shuffled"]
)
def test_what_has_no_bound_is_not_masked(predictor):
    assert not unstable(MASK, point(predictor=predictor, max_predict_steps=10_000))


def test_no_mask_masks_nothing():
    assert not unstable(None, point(max_predict_steps=10_000))


@pytest.mark.parametrize("sampler", ["tpe", "random", "nsga2"])
def test_no_masked_point_is_asked_and_each_is_counted_once(sampler):
    spec = sweep(space=WIDE, sampler=sampler, trials=30)
    session = Session(spec, random.Random(1))
    session.run()
    asked = [event for event in session.events if event["event"] == "asked"]
    assert len(asked) == 30
    assert not any(unstable(spec.mask, event["config"]) for event in asked)
    masked = [digest for event in asked for digest in event["masked"]]
    assert len(masked) == len(set(masked)) > 0
    assert list(session.study.masked) == masked


def test_a_masked_sweep_replays_and_resumes_to_the_same_points_and_counts():
    spec = sweep(space=WIDE, trials=20)
    events = Session(spec, random.Random(2)).run()
    assert len(replay(spec, "id", STEPS, events)) == 20
    whole, resumed = Study(spec, "id", STEPS), Study(spec, "id", STEPS)
    half = [i for i, event in enumerate(events) if event["event"] == "asked"][12]
    for event in events[:half]:
        resumed.apply(event)
    whole.restore(events[:half])
    assert whole.masked == resumed.masked
    assert whole.ask() == resumed.ask()


def test_what_is_named_is_never_masked():
    points = [{"max_predict_steps": 600, "full_steps": 5, "gates": "off"}]
    study = Study(sweep(space=WIDE, points=points, presets=["aggressive"]), "id", STEPS)
    assert [study.ask().source for _ in range(3)] == ["preset", "point", "tpe"]
    grid = {"max_predict_steps": [500, 600], "gates": ["off"]}
    study = Study(sweep(space=grid, sampler="grid"), "id", STEPS)
    assert [study.ask().source for _ in range(2)] == ["grid", "grid"]
    assert not study.masked


def test_a_finite_space_is_asked_to_its_last_stable_point():
    space = {"max_predict_steps": [50, 75, 100, 150, 200, 250], "gates": ["off"]}
    spec = sweep(space=space, trials=6)
    study = Study(spec, "id", STEPS)
    asked = [one.params["max_predict_steps"] for one in iter(study.ask, None)]
    assert sorted(asked) == [50, 75]
    assert len(study.masked) == 4


def test_a_space_without_a_stable_point_is_refused_in_a_sentence():
    with pytest.raises(UserError, match=r"^every point of the space is masked as unstable.*`mask: null`"):
        validate_mask(sweep(space=HOPELESS))
    validate_mask(sweep(space=HOPELESS, mask=None))
    validate_mask(sweep(space={"max_predict_steps": [400], "gates": ["off"]}, sampler="grid"))
    validate_mask(sweep(space=SPACE))
