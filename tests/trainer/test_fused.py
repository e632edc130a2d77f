"""Fused steps are those that each model would have taken by itself, whatever the others do."""

import weakref
from collections import namedtuple

import pytest
import torch
from support.problem import Problem
from torch import nn
from torch.optim import SGD, Adam, AdamW, NAdam, RMSprop
from torch.optim.lr_scheduler import StepLR

from hybrid_sweep.trainer.fused import FusedStep
from hybrid_sweep.trainer.layer_groups import LayerGroups
from hybrid_sweep.trainer.train_step import PendingStep, TrainStep

LOSS = Problem().loss
Pair = namedtuple("Pair", ["x", "y"])


def make(seed=0, optimizer=None, schedule=None, clip=None, **keywords):
    """A problem and its plain step."""
    problem = Problem(seed, **keywords)
    if optimizer:
        problem.optimizer = optimizer(problem.model.parameters(), lr=0.01)
    scheduler = schedule(problem.optimizer) if schedule else None
    return problem, TrainStep(problem.model, problem.optimizer, LOSS, scheduler, clip)


def many(count=3, **keywords):
    return [make(seed, **keywords) for seed in range(count)]


def fuse(fused, pairs, steps):
    """Take one step of each pair; return the losses."""
    taken = fused(
        [PendingStep(plain, problem.batch(t)) for (problem, plain), t in zip(pairs, steps, strict=True)]
    )
    return [taken[plain] for _, plain in pairs]


def alone(pairs, steps):
    return [float(plain(problem.batch(t))) for (problem, plain), t in zip(pairs, steps, strict=True)]


def assert_alike(ours, theirs):
    for (a, plain), (b, other) in zip(ours, theirs, strict=True):
        state, expected = a.model.state_dict(), b.model.state_dict()
        for name, value in expected.items():
            assert torch.allclose(state[name], value, rtol=1e-4, atol=1e-6), name
        assert plain.backward_calls == other.backward_calls
        assert plain.gradient_norm() == pytest.approx(other.gradient_norm(), rel=1e-4)
        assert plain.learning_rate == other.learning_rate


RECIPES = {
    "sgd": {},
    "momentum": {"momentum": 0.9},
    "adam": {"optimizer": Adam},
    "adamw": {"optimizer": AdamW},
    "rmsprop": {"optimizer": RMSprop},
    "nadam": {"optimizer": NAdam},
    "schedule": {"schedule": lambda optimizer: StepLR(optimizer, 2, gamma=0.5)},
    "clipping": {"clip": 0.3, "momentum": 0.9},
    "norm": {"norm": True},
    "its own optimizer": {"optimizer": type("Own", (SGD,), {})},
}


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_losses_weights_and_buffers_are_those_of_steps_taken_alone(recipe):
    ours, theirs, fused = many(**recipe), many(**recipe), FusedStep(3)
    for t in range(1, 8):
        steps = [t, 3 * t, t + 20]
        assert fuse(fused, ours, steps) == pytest.approx(alone(theirs, steps), rel=1e-4)
        assert_alike(ours, theirs)
    assert fused.refused == ""
    for (a, _), (b, _) in zip(ours, theirs, strict=True):
        saved, expected = a.optimizer.state_dict(), b.optimizer.state_dict()
        assert saved["param_groups"] == expected["param_groups"]
        assert saved["state"].keys() == expected["state"].keys()
        for i, of_parameter in expected["state"].items():
            assert saved["state"][i].keys() == of_parameter.keys()


def test_one_batch_for_all_is_not_copied():
    ours, theirs, fused = many(), many(), FusedStep(3)
    batch = ours[0][0].batch(1)
    taken = fused([PendingStep(plain, batch) for _, plain in ours])
    assert list(taken.values()) == pytest.approx(alone(theirs, [1, 1, 1]), rel=1e-5)
    assert_alike(ours, theirs)


@pytest.mark.parametrize("norm", [False, True])
def test_members_come_and_go(norm):
    ours, theirs, fused = many(5, norm=norm), many(5, norm=norm), FusedStep(3)
    for t, inside in enumerate([[0, 1, 2], [0, 1, 2], [1, 2], [1, 2, 3], [1, 3], [4, 3, 1], [4], [4, 0]], 1):
        for i in {0, 1, 2, 3, 4} - set(inside):
            fused.leave(ours[i][1])
        expected = alone([theirs[i] for i in inside], [t] * len(inside))
        assert fuse(fused, [ours[i] for i in inside], [t] * len(inside)) == pytest.approx(expected, rel=1e-4)
        assert_alike([ours[i] for i in inside], [theirs[i] for i in inside])
        for (a, _), (b, _) in zip(ours, theirs, strict=True):
            for p, q in zip(a.model.parameters(), b.model.parameters(), strict=True):
                assert torch.allclose(p, q, rtol=1e-4, atol=1e-6)


def test_some_of_the_members_can_step_without_the_others():
    ours, theirs, fused = many(norm=True), many(norm=True), FusedStep(3)
    for t, inside in enumerate([[0, 1, 2], [0, 2], [2, 0], [1, 2], [0, 1, 2]], 1):
        expected = alone([theirs[i] for i in inside], [t] * len(inside))
        assert fuse(fused, [ours[i] for i in inside], [t] * len(inside)) == pytest.approx(expected, rel=1e-4)
        assert_alike([ours[i] for i in inside], [theirs[i] for i in inside])


def test_the_weights_of_a_trainer_stay_in_its_vector():
    pairs, fused = many(), FusedStep(3)
    groups = [LayerGroups.from_model(problem.model) for problem, _ in pairs]
    fused([PendingStep(p, a.batch(1), g) for (a, p), g in zip(pairs, groups, strict=True)])
    held = groups[0].vector
    for _ in range(2):
        for (problem, plain), g in zip(pairs, groups, strict=True):
            assert g.in_place()
            assert torch.equal(g.flat([p.detach() for p in problem.model.parameters()]), g.vector)
            fused.leave(plain)
    assert groups[0].vector is held


def test_a_batch_of_another_shape_goes_alone():
    ours, theirs, fused = many(), many(), FusedStep(3)
    half = tuple(part[:16] for part in ours[1][0].batch(2))
    taken = fused([PendingStep(p, half if i == 1 else a.batch(2)) for i, (a, p) in enumerate(ours)])
    expected = [float(p(half if i == 1 else a.batch(2))) for i, (a, p) in enumerate(theirs)]
    assert [float(taken[plain]) for _, plain in ours] == pytest.approx(expected, rel=1e-5)
    assert fused.refused == ""


@pytest.mark.parametrize("form", [list, dict, Pair])
def test_batches_may_be_nested(form):
    def batch(problem, t):
        x, y = problem.batch(t)
        return {"x": x, "y": y} if form is dict else Pair(x, y) if form is Pair else [x, y]

    def loss(model, batch):
        x, y = batch.values() if form is dict else batch
        return nn.functional.mse_loss(model(x), y)

    ours, theirs, fused = many(), many(), FusedStep(3)
    for _, plain in ours + theirs:
        plain.loss_fn = loss
    taken = fused([PendingStep(plain, batch(a, 5)) for a, plain in ours])
    expected = [float(plain(batch(a, 5))) for a, plain in theirs]
    assert list(taken.values()) == pytest.approx(expected, rel=1e-5)
    assert fused.refused == ""


def without_extra(model, batch):
    return nn.functional.mse_loss(model[:3](batch[0]), batch[1])


def test_frozen_and_unused_parameters_stay_as_they_are():
    ours, theirs, fused = many(), many(), FusedStep(3)
    for problem, plain in ours + theirs:
        problem.model[0].bias.requires_grad_(False)
        problem.model.extra = nn.Linear(2, 2)
        with torch.no_grad():
            problem.model.extra.weight.fill_(1.0)
            problem.model.extra.bias.fill_(1.0)
        problem.optimizer.add_param_group({"params": list(problem.model.extra.parameters())})
        plain.parameters = [p for p in problem.model.parameters() if p.requires_grad]
        plain.loss_fn = without_extra
    for t in range(1, 4):
        assert fuse(fused, ours, [t] * 3) == pytest.approx(alone(theirs, [t] * 3), rel=1e-5)
    assert_alike(ours, theirs)
    assert ours[0][0].model.extra.weight.grad is None
    assert fused.refused == ""


REFUSED = {
    "a loss that is read": lambda model, batch: LOSS(model, batch) * (1 + (LOSS(model, batch).item() > 1e9)),
    "a vector": lambda model, batch: (model(batch[0]) - batch[1]).square().sum(1).view(-1, 1)[:1],
}


@pytest.mark.parametrize("loss", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_fused_is_taken_alone_from_then_on(loss):
    ours, theirs, fused = many(), many(), FusedStep(3)
    for _, plain in ours + theirs:
        plain.loss_fn = loss
    for t in (1, 2):
        taken = fuse(fused, ours, [t, t + 1, t + 2])
        assert list(map(float, taken)) == alone(theirs, [t, t + 1, t + 2])
        assert fused.refused
    assert_alike(ours, theirs)


def test_what_a_failed_attempt_has_taken_is_free_again_when_the_steps_are_taken_alone():
    class Activations:
        pass

    attempt = []

    def greedy(model, batch):
        if not attempt:
            activations = Activations()
            attempt.append(weakref.ref(activations))
            raise torch.OutOfMemoryError
        assert attempt[0]() is None
        return LOSS(model, batch)

    ours, theirs, fused = many(), many(), FusedStep(3)
    for _, plain in ours:
        plain.loss_fn = greedy
    assert list(map(float, fuse(fused, ours, [1, 2, 3]))) == alone(theirs, [1, 2, 3])
    assert fused.refused == "OutOfMemoryError"


def test_an_error_of_one_is_its_own():
    def broken_here(model, batch):
        if hasattr(model, "broken"):
            raise RuntimeError("broken")
        return LOSS(model, batch)

    ours, theirs, fused = many(), many(), FusedStep(3)
    for _, plain in ours:
        plain.loss_fn = broken_here
    fuse(fused, ours, [1, 1, 1])
    alone(theirs, [1, 1, 1])
    ours[0][0].model.broken = True
    first, *others = fuse(fused, ours, [2, 2, 2])
    assert str(first) == "broken"
    assert list(map(float, others)) == alone(theirs[1:], [2, 2])
    assert fused.refused == ""


def test_an_optimizer_that_looks_again_is_refused_by_name():
    pairs = many(optimizer=torch.optim.LBFGS)
    taken = fuse(FusedStep(3), pairs, [1, 1, 1])
    assert all("LBFGS evaluates its loss more than once a step" in str(error) for error in taken)


def test_a_diverged_member_leaves_the_others_alone():
    ours, theirs, fused = many(), many(), FusedStep(3)
    with torch.no_grad():
        ours[1][0].model[0].weight.fill_(float("nan"))
    for t in (1, 2, 3):
        taken = fuse(fused, ours, [t] * 3)
        assert taken[1] != taken[1]
        expected = alone([theirs[0], theirs[2]], [t, t])
        assert [taken[0], taken[2]] == pytest.approx(expected, rel=1e-5)


def test_no_more_than_its_size():
    pairs, fused = many(3), FusedStep(2)
    assert [float(loss) for loss in fuse(fused, pairs, [1] * 3)] == alone(many(3), [1] * 3)
    assert "a pack of 2" in fused.refused
