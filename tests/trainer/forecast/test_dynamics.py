"""RSSM-lite: the GRU, the loss head, the weight-delta head, and what they promise."""

import copy
import math
import random
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hybrid_sweep.errors import UserError
from hybrid_sweep.trainer.forecast.dynamics import DeltaHead, RssmLite, delta_head_gradient
from hybrid_sweep.trainer.forecast.features import Array, StepHistory


def decaying(step: int) -> float:
    return 0.2 + 2.1 * (1 + step / 150) ** -1.2


class Run:
    """A training run of noisy decaying losses, in cycles of 20 real steps and a gap."""

    def __init__(self, *, noise: float = 0.05, gap: int = 40, seed: int = 0, scale: float = 1.0) -> None:
        self.history = StepHistory()
        self.step = 0
        self._noise, self._gap, self._scale = noise, gap, scale
        self._random = random.Random(seed)

    def draw(self, step: int) -> float:
        return self._scale * decaying(step) * math.exp(self._noise * self._random.gauss(0, 1))

    def real_steps(self, count: int) -> None:
        for _ in range(count):
            self.step += 1
            self.history.append(self.step, self.draw(self.step), 1 + 0.1 * self._random.random(), 0.01)

    def teach(self, model: RssmLite, cycles: int) -> list[float]:
        self.real_steps(100)
        errors = model.train(self.history, 100)
        for _ in range(cycles):
            self.step += self._gap
            self.real_steps(20)
            errors = model.train(self.history, 20)
        return errors


def test_nothing_touches_the_global_generator() -> None:
    before = torch.get_rng_state()
    model = RssmLite(seed=3, members=2)
    Run().teach(model, 2)
    model.rollout(5)
    model.gates()
    assert torch.equal(torch.get_rng_state(), before)


def test_the_same_seed_gives_the_same_predictions_and_another_seed_others() -> None:
    def forecast(seed: int) -> list[float]:
        model = RssmLite(seed=seed)
        Run().teach(model, 3)
        return model.rollout(20)

    assert forecast(1) == forecast(1) != forecast(2)


@pytest.mark.parametrize("values", [{"hidden_size": 0}, {"hidden_size": 65}, {"members": 0}])
def test_sizes_out_of_range_are_refused(values: dict[str, int]) -> None:
    with pytest.raises(UserError, match=r"=\d+ is not allowed"):
        RssmLite(**values)


def test_errors_are_measured_before_the_update_one_for_each_step_but_the_first() -> None:
    model, run = RssmLite(), Run()
    run.real_steps(21)
    twin = copy.deepcopy(model)
    errors = model.train(run.history, 20)
    assert len(errors) == len(model.residuals) == 19
    scales = [real.fast for real in run.history.newest(20)[:-1]]
    expected = [abs(r) / scale for r, scale in zip(model.residuals, scales, strict=True)]
    assert errors == pytest.approx(expected)
    assert twin.train(run.history, 20) == errors


def test_training_changes_the_predictor_and_lowers_its_error_on_the_same_steps() -> None:
    model, run = RssmLite(learning_rate=1e-2), Run(noise=0.02)
    run.real_steps(100)
    first = sum(model.train(run.history, 100))
    for _ in range(20):
        last = sum(model.train(run.history, 100))
    assert last < 0.9 * first


def test_too_few_steps_teach_nothing_and_break_nothing() -> None:
    model, run = RssmLite(), Run()
    assert model.train(run.history, 20) == []
    run.real_steps(1)
    assert model.train(run.history, 20) == []
    assert all(math.isfinite(loss) for loss in model.rollout(3))


def test_members_disagree_and_one_member_spreads_by_its_errors() -> None:
    alone, several = RssmLite(), RssmLite(members=3)
    errors = Run(noise=0.1).teach(alone, 3)
    Run(noise=0.1).teach(several, 3)
    assert 0 < several.spread < alone.spread
    assert alone.spread < 2 * sum(errors) / len(errors)


def test_a_rollout_changes_no_state() -> None:
    model = RssmLite()
    Run().teach(model, 2)
    first = model.rollout(30)
    assert model.rollout(30) == first
    assert model.rollout(10) == first[:10]
    assert len(first) == 30 and all(math.isfinite(loss) and loss > 0 for loss in first)


def test_predictions_follow_the_scale_of_the_loss() -> None:
    plain, large = RssmLite(), RssmLite()
    Run().teach(plain, 3)
    Run(scale=10).teach(large, 3)
    assert large.rollout(10) == pytest.approx([10 * loss for loss in plain.rollout(10)], rel=1e-3)


def test_a_rollout_of_ten_beats_the_last_value_and_the_linear_trend() -> None:
    """Squared relative error of the loss ten steps ahead, over held-out cycles of three noisy runs."""
    errors = {"rssm": 0.0, "last": 0.0, "trend": 0.0}
    for seed in range(3):
        model, run = RssmLite(seed=seed), Run(noise=0.1, seed=seed)
        run.teach(model, 4)
        for _ in range(15):
            run.step += 40
            run.real_steps(20)
            model.train(run.history, 20)
            losses = [real.loss for real in run.history.newest(20)]
            slope = sum((i - 9.5) * loss for i, loss in enumerate(losses)) / 665
            trend = sum(losses) / 20 + slope * 19.5
            actual = run.draw(run.step + 10)
            guesses = {"rssm": model.rollout(10)[-1], "last": losses[-1], "trend": trend}
            for name, guess in guesses.items():
                errors[name] += ((guess - actual) / actual) ** 2
    assert errors["rssm"] < 0.8 * errors["last"]
    assert errors["rssm"] < 0.8 * errors["trend"]


@pytest.mark.parametrize("stride", [1, 3, 8, 50])
def test_any_stride_gives_as_many_losses(stride: int) -> None:
    model = RssmLite(hidden_size=8)
    Run().teach(model, 1)
    assert len(model.rollout(20, stride)) == 20
    assert model.rollout(0, stride) == []


def test_gates_start_at_one() -> None:
    gates = RssmLite().gates()
    assert (gates.size, gates.groups) == (1.0, (1.0,) * 8)
    assert RssmLite(literal=True).gates().groups == (0.5,) * 8


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-50, 50), min_size=9, max_size=9), st.booleans())
def test_gates_stay_within_their_bounds(biases: list[float], literal: bool) -> None:
    head = DeltaHead(2, 8, literal)
    head.bias = np.array(biases, np.float32)
    gates = head.gates(np.ones(2, np.float32))
    assert 0 <= gates.size <= 2
    assert all(0 <= gate <= (1 if literal else 2) for gate in gates.groups)


def test_the_head_gradient_is_the_one_of_half_the_squared_error() -> None:
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(5, 10, dtype=torch.float64, generator=generator).requires_grad_()
    targets = torch.rand(5, 10, dtype=torch.float64, generator=generator)
    squashed = torch.cat([outputs[:, :1].tanh(), outputs[:, 1:].sigmoid()], dim=1)
    (expected,) = torch.autograd.grad(0.5 * (squashed - targets).square().sum(), outputs)
    found = [delta_head_gradient(y, t) for y, t in zip(outputs.tolist(), targets.tolist(), strict=True)]
    torch.testing.assert_close(torch.tensor(found, dtype=torch.float64), expected)


def test_the_head_has_nine_outputs_and_every_one_learns() -> None:
    head = DeltaHead(64, 8, literal=False)
    assert head.weight.shape == (9, 64)
    generator = np.random.default_rng(0)
    for _ in range(4):
        targets = generator.random(9).tolist()
        head.learn(generator.random(64, np.float32), targets[0], targets[1:])
    assert (np.abs(head.weight).sum(axis=1) > 0).all()


def _synthetic(state: Array, mix: Array) -> list[float]:
    """Nine targets, each a smooth function of the state, within reach of the gates."""
    return (0.5 + 0.2 * np.tanh(mix @ state)).tolist()


def test_the_head_learns_a_synthetic_target_in_all_nine_dimensions() -> None:
    generator = np.random.default_rng(0)
    head = DeltaHead(4, 8, literal=False)
    states = generator.standard_normal((16, 4), np.float32)
    mix = 0.3 * generator.standard_normal((9, 4), np.float32)
    lessons = [(state, _synthetic(state, mix)) for state in states]
    for _ in range(100):
        for state, (size, *groups) in lessons:
            head.learn(state, 0.5 + size, [2 * group for group in groups])
    errors = np.zeros(9)
    for state, wanted in lessons:
        gates = head.gates(state)
        found = [gates.size - 0.5, *(gate / 2 for gate in gates.groups)]
        errors += (np.array(found) - np.array(wanted)) ** 2 / len(lessons)
    assert (errors < 1e-3).all()


def test_one_lesson_a_cycle_moves_the_gates_to_what_was_real() -> None:
    model, run = RssmLite(), Run()
    groups = (0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6, 1.7)
    run.real_steps(100)
    model.train(run.history, 100)
    for _ in range(25):
        model.gates()
        run.step += 40
        run.real_steps(20)
        model.train(run.history, 20)
        model.learn_gates(0.7, groups)
    gates = model.gates()
    assert gates.size == pytest.approx(0.7, abs=0.1)
    assert gates.groups == pytest.approx(groups, abs=0.15)


def test_the_literal_head_is_never_taught_beyond_its_clamp() -> None:
    model = RssmLite(literal=True)
    for _ in range(300):
        model.gates()
        model.learn_gates(1.0, (2.0, 0.0) * 4)
    for high, low in pairwise(model.gates().groups):
        assert {round(high, 2), round(low, 2)} == {0.1, 0.9}


def test_without_issued_gates_there_is_nothing_to_learn() -> None:
    model = RssmLite()
    model.learn_gates(2.0, (2.0,) * 8)
    assert model.gates().size == 1.0
    model.learn_gates(2.0, (2.0,) * 8)
    assert model.gates().size == pytest.approx(2.0, abs=0.01)


@pytest.mark.parametrize("serialise", [copy.copy, copy.deepcopy])
def test_state_round_trip_continues_identically_and_repeatedly(serialise: Callable[[object], object]) -> None:
    def go_on(model: RssmLite, run: Run) -> list[object]:
        run.real_steps(20)
        errors = model.train(run.history, 20)
        gates = model.gates()
        model.learn_gates(0.5, (0.5,) * 8)
        return [errors, gates, model.gates(), model.rollout(12), model.spread, model.residuals]

    model, run = RssmLite(hidden_size=16, members=2), Run()
    run.teach(model, 2)
    model.gates()
    model.learn_gates(0.8, (1.5,) * 8)
    state = serialise(model.state_dict())
    first = go_on(model, copy.deepcopy(run))
    for _ in range(2):
        other = RssmLite(hidden_size=16, members=2, seed=9)
        other.load_state_dict(state)
        assert go_on(other, copy.deepcopy(run)) == first
    model.load_state_dict(state)
    assert go_on(model, copy.deepcopy(run)) == first
