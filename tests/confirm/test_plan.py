import json
from dataclasses import asdict, replace
from math import inf

import pytest
from support import toy

from hybrid_sweep.confirm.plan import (
    FIRST_MULTIPLIERS,
    LARGER_MULTIPLIERS,
    SMALLER_MULTIPLIERS,
    Plan,
    described,
    target_loss,
)
from hybrid_sweep.control import ControlConfig, tuning_trials
from hybrid_sweep.measure.control_optimizers import NotApplicable
from hybrid_sweep.measure.control_training import HybridCurve
from hybrid_sweep.measure.curve import Curve
from hybrid_sweep.trainer.config import HybridConfig


def settings(arm):
    return arm.model_dump_json(exclude={"real_steps"})


CURVE = Curve(steps=[0, 9], backward_calls=[0, 9], seconds=[0.0, 1.0], val_loss=[2.3, 0.3])


def plan_of(arm):
    """Return the plan that compares one point with one control, chosen of three."""
    points = {"H010": HybridConfig()}
    return Plan(points=points, arms=(arm,), tuning_seed=0, tuning_trials=3, seeds=[1, 2], min_quality=0.98)


class Runs:
    """Runs that end, at once, with the loss that a function of their key says."""

    workload = toy.Toy()
    steps = 100

    def __init__(self, loss):
        self.known, self.loss = {}, loss

    def curves(self, key):
        return self.known.get(key, [])

    def hybrid(self, trial_id, seed):
        return self.curves((trial_id, "hybrid", seed))[0]

    def add(self, key, config, *, test):
        loss = self.loss(key)
        values = {**asdict(CURVE), "val_loss": [2.3, loss], "test": {"loss": loss}}
        hybrid = {"trace": [], "forward_only_calls": 0}
        curve = HybridCurve(**values, **hybrid) if config else Curve(**values)
        self.known.setdefault(key, []).append(curve)


def test_the_settings_chosen_are_those_that_reach_the_target_first():
    def curve(backward_calls, val_loss):
        return Curve(
            steps=backward_calls, backward_calls=backward_calls, seconds=[0.0] * 3, val_loss=val_loss
        )

    candidates = tuning_trials("tuned", 3, 0)
    curves = {
        ("", "reference", 0): curve([0, 50, 100], [3.0, 1.0, 0.5]),
        ("H010", "hybrid", 0): HybridCurve(**asdict(CURVE), trace=[], forward_only_calls=0),
    }
    ends = [[3.0, 2.0, 0.1], [3.0, 0.5, 0.4], [3.0, 2.0, 0.9]]  # the best end, the first there, never there
    for arm, losses in zip(candidates, ends, strict=True):
        curves["H010", settings(arm), 0] = curve([0, 20, 40], losses)

    class PriorPoint:
        workload = toy.Toy()
        steps = 100

        def curves(self, key):
            return [curves[key]] if key in curves else []

        def hybrid(self, trial_id, seed):
            return curves[trial_id, "hybrid", seed]

    assert plan_of("tuned").controls(PriorPoint(), "H010") == {"tuned": settings(candidates[1])}


@pytest.mark.parametrize(
    ("best", "edge", "tried", "chosen", "outermost"),
    [
        (2.0, inf, FIRST_MULTIPLIERS, 2.0, ""),
        (4.0, inf, FIRST_MULTIPLIERS + LARGER_MULTIPLIERS[:1], 4.0, ""),
        (6.0, inf, FIRST_MULTIPLIERS + LARGER_MULTIPLIERS[:2], 6.0, ""),
        (99.0, inf, FIRST_MULTIPLIERS + LARGER_MULTIPLIERS, 13.5, "largest"),
        (1.0, inf, FIRST_MULTIPLIERS + SMALLER_MULTIPLIERS[:1], 1.0, ""),
        (0.5, inf, FIRST_MULTIPLIERS + SMALLER_MULTIPLIERS[:3], 0.5, ""),
        (9.0, 0.4, FIRST_MULTIPLIERS + SMALLER_MULTIPLIERS, 0.35, ""),  # the larger ones diverge
        (9.0, 0.1, FIRST_MULTIPLIERS + SMALLER_MULTIPLIERS, 0.25, "smallest"),  # all of them do
    ],
)
def test_the_learning_rate_is_moved_until_it_turns(best, edge, tried, chosen, outermost):
    """Losses fall up to the multiplier `best` and rise from there, and from `edge` on are infinite.

    m is 1, for nothing was predicted.
    """
    ran = []

    def loss(key):
        if not key[1].startswith("{"):
            return 0.5
        multiplier = json.loads(key[1])["multiplier"]
        ran.append((key[2], multiplier))
        return inf if (multiplier or 0) >= edge else 1 + abs((multiplier or 0) - best) / 100

    runs, plan = Runs(loss), plan_of("lr_matched")
    told = list(plan.run(runs))
    assert [m for seed, m in ran if seed == 0] == list(tried)
    assert {m for seed, m in ran if seed == 1 and m} == {chosen}
    assert {told[-1].total - 1} == {told[-1].done}
    pairs = plan.pairs(runs)
    assert list(pairs.loc[pairs["arm"] == "lr_matched", "outermost"]) == [outermost] * 2


def test_a_ladder_that_does_not_apply_is_left_out():
    def loss(key):
        if "lr_matched" in key[1]:
            raise NotApplicable("no learning rate")
        return 0.3

    runs, plan = Runs(loss), plan_of("lr_matched")
    list(plan.run(runs))
    assert set(plan.pairs(runs)["arm"]) == {"reference"}


def test_the_target_is_what_the_reference_ends_with_at_the_bar():
    assert target_loss("loss_ratio", CURVE, 0.98) == pytest.approx(0.3 / 0.98)
    negative = replace(CURVE, val_loss=[1.0, -1.0])
    assert target_loss("loss_gap", negative, 0.98) == pytest.approx(-0.96)


@pytest.mark.parametrize(
    ("arm", "said"),
    [
        (
            ControlConfig(name="lr_matched", multiplier=4.5),
            "the same recipe at learning rate 0.045 where the jumps were",
        ),
        (ControlConfig(name="lr", multiplier=4.5), "the same recipe at learning rate 0.045"),
        (ControlConfig(name="momentum", multiplier=4.0), "the same recipe with momentum 0.75"),
        (
            ControlConfig(name="tuned", lr=0.2),
            "SGD at learning rate 0.2, Nesterov momentum 0.90, weight decay 0, linear decay to 0",
        ),
        (
            ControlConfig(name="schedule_free", optimizer="adamw", lr=0.002),
            "Schedule-Free AdamW at learning rate 0.002, beta1 0.90, weight decay 0",
        ),
    ],
)
def test_a_control_in_words(arm, said):
    assert described(arm, 0.01) == said


def test_a_control_of_which_no_setting_applies_is_left_out_with_its_reason():
    def loss(key):
        if '"tuned"' in key[1]:
            raise NotApplicable("arm 'tuned' cannot train this recipe")
        return 0.3

    runs, plan = Runs(loss), plan_of("tuned")
    list(plan.run(runs))
    assert plan.not_applicable(runs) == {"tuned": "arm 'tuned' cannot train this recipe"}
    assert set(plan.pairs(runs)["arm"]) == {"reference"}


def test_settings_that_do_not_apply_are_not_counted_as_tried():
    def loss(key):
        if '"optimizer":"adamw"' in key[1]:
            raise NotApplicable("no AdamW here")
        return 0.3

    runs, plan = Runs(loss), plan_of("tuned")
    list(plan.run(runs))
    assert (plan.not_applicable(runs), plan.tuned_on()) == ({}, 2)
