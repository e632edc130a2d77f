"""The mixture of RSSM-lite's word and the last smoothed loss."""

import math
import random
from collections.abc import Callable

import pytest

from hybrid_sweep.trainer.forecast.outlook import LossForecast
from hybrid_sweep.trainer.skill import Skill, relative_error

SAME = 1.0
Jump = Callable[[random.Random], tuple[float, float]]
"""Draws what the model says of a jump and what is true, both over the level before."""


def skill_after(jump: Jump, jumps: int = 60, measured: int = 6, noise: float = 0.2) -> tuple[float, float]:
    """Return the skill of the first forecast of each jump and of all, against the level, after `jumps`."""
    rng, mixture, first, every = random.Random(0), LossForecast(), Skill(), Skill()
    for _ in range(jumps):
        level = math.exp(rng.gauss(0, 1))
        says, truth = jump(rng)
        for i in range(measured):
            actual = level * truth * math.exp(noise * rng.gauss(0, 1))
            errors = [relative_error(mixture.outlook(level).loss(level * says), actual)]
            errors += [relative_error(level, actual)]
            every.add(*errors)
            if i == 0:
                first.add(*errors)
            mixture.learn(level, level * says, actual)
        for part in (mixture, first, every):
            part.end_jump()
    return first.interval().value, every.interval().value


def test_it_starts_as_the_last_smoothed_loss() -> None:
    assert LossForecast().outlook(0.7).loss(0.2) == 0.7


def test_a_model_that_knows_is_believed() -> None:
    def knowing(rng: random.Random) -> tuple[float, float]:
        truth = math.exp(rng.gauss(0, 0.5))
        return truth, truth

    first, every = skill_after(knowing)
    assert first > 0.6 and every > 0.6


def test_a_model_that_knows_nothing_costs_next_to_nothing() -> None:
    def lost(rng: random.Random) -> tuple[float, float]:
        return math.exp(rng.gauss(-0.5, 0.5)), SAME

    first, every = skill_after(lost)
    assert first > -0.03 and every > -0.15


def test_what_jumps_always_do_is_learned_whatever_the_model_says() -> None:
    first, every = skill_after(lambda rng: (math.exp(rng.gauss(-0.5, 0.1)), 1.5))
    assert first > 0.5 and every > 0.6


def test_what_a_jump_has_shown_is_what_its_next_losses_are_like() -> None:
    first, every = skill_after(lambda rng: (SAME, math.exp(rng.gauss(0, 0.7))))
    assert every > 0.5
    assert first > -0.05, "before the first loss there is nothing to know"


def test_forecasts_follow_the_unit_of_the_loss() -> None:
    one, other = LossForecast(), LossForecast()
    for actual in (1.2, 1.4, 1.3):
        one.learn(1.0, 0.8, actual)
        other.learn(1e-4, 0.8e-4, actual * 1e-4)
    assert one.outlook(1.0).loss(0.8) * 1e-4 == pytest.approx(other.outlook(1e-4).loss(0.8e-4))
    assert one.outlook(1.0).loss(0.8) > 1.1


def test_losses_of_any_sign_and_size_leave_it_finite() -> None:
    mixture = LossForecast()
    for level, modelled, actual in (
        (-1.0, -0.9, -1.1),
        (0.0, 0.0, 0.0),
        (1.0, -1.0, 1e300),
        (1.0, 1.0, -5.0),
    ):
        mixture.learn(level, modelled, actual)
        assert math.isfinite(mixture.outlook(level).loss(modelled))
    before = mixture.outlook(1.0)
    mixture.learn(1.0, 1.0, math.nan)
    mixture.learn(1.0, math.inf, 1.0)
    assert mixture.outlook(1.0) == before


def test_an_outlook_stays_what_it_was() -> None:
    mixture = LossForecast()
    mixture.learn(1.0, 1.0, 1.5)
    outlook = mixture.outlook(1.0)
    said = outlook.loss(1.0)
    mixture.learn(1.0, 1.0, 3.0)
    assert outlook.loss(1.0) == said < mixture.outlook(1.0).loss(1.0)


def test_state_round_trip() -> None:
    one, other = LossForecast(), LossForecast()
    for actual in (1.2, 1.4):
        one.learn(1.0, 0.8, actual)
    other.load_state_dict(one.state_dict())
    for mixture in (one, other):
        mixture.learn(1.0, 0.9, 1.1)
        mixture.end_jump()
        mixture.learn(2.0, 1.9, 2.1)
    assert one.outlook(1.0) == other.outlook(1.0)
