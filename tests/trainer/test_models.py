"""Models of all kinds: several types, complex, shared, empty and frozen parts, changed while they train."""

import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from support.problem import Problem
from torch import nn

from hybrid_sweep.measure.checkpoint import from_bytes, to_bytes
from hybrid_sweep.trainer.config import HybridConfig
from hybrid_sweep.trainer.phases import Phase
from hybrid_sweep.trainer.predictors import PREDICTORS
from hybrid_sweep.trainer.trainer import HybridTrainer

CONFIG = HybridConfig(
    warmup_steps=20,
    full_steps=10,
    max_predict_steps=10,
    horizon_rule="fixed",
    confidence_threshold=0.001,
    correction_interval=5,
)


class Trunk(nn.Module):
    """A trunk in single precision, a layer in half and a head in double precision, tied and empty parts."""

    def __init__(self, head=torch.float64, middle=torch.bfloat16):
        super().__init__()
        self.trunk = nn.Linear(6, 16)
        self.middle = nn.Linear(16, 16, dtype=middle)
        self.head = nn.Linear(16, 1, dtype=head)
        self.tied = nn.Linear(16, 1, dtype=head)
        self.tied.weight = self.head.weight
        self.empty = nn.Parameter(torch.empty(0, 3))
        self.frozen = nn.Linear(6, 16).requires_grad_(False)

    def forward(self, x):
        h = torch.tanh(self.trunk(x) + self.frozen(x))
        h = torch.tanh(self.middle(h.to(self.middle.weight.dtype))).to(self.head.weight.dtype)
        return (self.head(h) + self.tied(h)).float()


class Waves(nn.Module):
    """A layer of complex weights between two real ones."""

    def __init__(self):
        super().__init__()
        self.before, self.waves, self.after = (
            nn.Linear(6, 8),
            nn.Linear(8, 8, dtype=torch.complex64),
            nn.Linear(8, 1),
        )

    def forward(self, x):
        return self.after(self.waves(self.before(x).to(torch.complex64)).abs())


def problem_of(net, make=torch.optim.SGD, **settings):
    problem = Problem()
    torch.manual_seed(3)
    problem.model = net()
    problem.optimizer = make(problem.model.parameters(), **{"lr": 0.02, **settings})
    return problem


def trainer_of(problem, config=CONFIG, **more):
    return HybridTrainer(problem.model, problem.optimizer, config, loss_fn=problem.loss, **more)


def weights(problem):
    return [p.detach().clone() for p in problem.model.parameters()]


@pytest.mark.parametrize("net", [Trunk, Waves])
@pytest.mark.parametrize("predictor", sorted(PREDICTORS))
def test_every_predictor_trains_it_and_a_saved_run_goes_on_to_the_bit(net, predictor):
    config = CONFIG.replace(predictor=predictor, tail="average", cycle_mode="chained")
    one, other = (problem_of(net, momentum=0.9) for _ in range(2))
    first, second = trainer_of(one, config), trainer_of(other, config)
    first.run_cycle(one.batch, 120)
    second.load_state_dict(from_bytes(to_bytes(first.state_dict())))
    stats = [trainer.run(problem.batch, 120) for trainer, problem in ((first, one), (second, other))]
    assert stats[0] == stats[1]
    assert stats[0].predict_phases > 0
    assert all(torch.equal(a, b) for a, b in zip(weights(one), weights(other), strict=True))
    assert all(
        a.dtype == b.dtype for a, b in zip(weights(one), problem_of(net).model.parameters(), strict=True)
    )
    if predictor not in ("sign_flipped", "random", "shuffled"):
        assert one.loss(one.model, one.batch(500)) < 0.5 * problem_of(net).loss(
            problem_of(net).model, one.batch(500)
        )


def test_adam_is_replayed_on_complex_weights_as_on_their_two_parts():
    config = CONFIG.replace(predictor="optimizer_replay", gates="off", correction_interval=0, correct_steps=0)
    problem = problem_of(Waves, torch.optim.Adam)
    trainer = trainer_of(problem, config)
    while trainer.controller.phase is not Phase.PREDICT or trainer.controller.steps_in_current_phase:
        before = weights(problem)
        assert trainer.step(problem.batch(trainer.tally.steps + 1)).step < 60
        if trainer.controller.phase is Phase.PREDICT:
            break
    state = problem.optimizer.state[problem.model.waves.weight]
    count, grown = float(state["step"]), 0.9 * (1 - 0.9**10) / (1 - 0.9)
    move, square = (torch.view_as_real(state[name]) for name in ("exp_avg", "exp_avg_sq"))
    expected = -0.02 * grown * (move / (1 - 0.9**count)) / ((square / (1 - 0.999**count)).sqrt() + 1e-8)
    found = torch.view_as_real(problem.model.waves.weight.detach() - before[2])
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)


def test_a_shut_gate_is_plain_training_with_parameters_of_several_types():
    ours, plain = problem_of(Trunk, momentum=0.9), problem_of(Trunk, momentum=0.9)
    trainer_of(ours, CONFIG.replace(confidence_threshold=0.999)).run(ours.batch, 80)
    for step in range(1, 81):
        plain.optimizer.zero_grad()
        plain.loss(plain.model, plain.batch(step)).backward()
        plain.optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(weights(ours), weights(plain), strict=True))


def test_a_jump_of_several_types_goes_as_far_as_each_type_by_itself():
    """The displacement of a layer does not depend on the type of another one."""
    moved = []
    for middle in (torch.float32, torch.float64):
        problem = problem_of(lambda: Trunk(torch.float32, torch.float32))
        problem.model.middle.to(middle)
        problem.optimizer = torch.optim.SGD(problem.model.parameters(), lr=0.02)
        alone = CONFIG.replace(gates="off", correct_steps=0, correction_interval=0, minimum_cosine=-1)
        assert trainer_of(problem, alone).run(problem.batch, 60).predict_phases == 1
        moved.append(problem.model.trunk.weight.detach())
    torch.testing.assert_close(*moved, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.Adam])
@pytest.mark.parametrize("at", [25, 33, 60])
@pytest.mark.parametrize("single", [False, True])
def test_a_model_made_double_while_it_trains_is_followed(make, at, single, caplog):
    problem = problem_of(lambda: nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 1)), make)
    problem.loss = loss = in_the_type_of_the_model
    trainer = trainer_of(problem)
    drive(trainer, problem, at, single)
    problem.model.double()
    drive(trainer, problem, 160, single)
    assert "the predictor starts afresh" in caplog.text
    assert caplog.text.count("afresh") == 1
    assert jumps_after(trainer, at)
    assert trainer.planner.groups.holds(problem.model)
    assert trainer.planner.groups.vector.dtype == torch.float64
    assert loss(problem.model, problem.batch(500)) < 1.0


def in_the_type_of_the_model(model, batch):
    dtype = model[0].weight.dtype
    return F.mse_loss(model(batch[0].to(dtype)), batch[1].to(dtype))


def drive(trainer, problem, total, single):
    if single:
        while trainer.tally.steps < total:
            trainer.step(problem.batch(trainer.tally.steps + 1))
    else:
        trainer.run(problem.batch, total)


def jumps_after(trainer, step):
    ends = [0]
    for segment in trainer.trace():
        ends.append(ends[-1] + segment.length)
    return [
        s
        for s, (begin, _) in zip(trainer.trace(), pairwise(ends), strict=True)
        if begin >= step and s[0] == "predict"
    ]


def unfreezing(at, part="0"):
    problem = Problem()
    layer = problem.model.get_submodule(part).requires_grad_(False)
    loss = problem.loss

    def unfreezing_loss(model, batch):
        if len(problem.loaded) >= at:
            layer.requires_grad_(True)
        return loss(model, batch)

    problem.loss = unfreezing_loss
    return problem, layer


@pytest.mark.filterwarnings("error")  # torch warns where a buffer of another size is written over
@pytest.mark.parametrize("predictor", ["ema", "outer_momentum", "rre"])
def test_parameters_that_are_unfrozen_are_moved_by_the_jumps_that_follow(predictor, caplog):
    problem, layer = unfreezing(35)
    trainer = trainer_of(problem, CONFIG.replace(predictor=predictor, correction_interval=0, correct_steps=0))
    moved = []
    while trainer.tally.steps < 120:
        before = layer.weight.detach().clone()
        told = trainer.step(problem.batch(trainer.tally.steps + 1))
        if told.phase is Phase.PREDICT and trainer.controller.steps_in_current_phase == 1:
            moved.append((len(problem.loaded) >= 35, not torch.equal(layer.weight, before)))
    assert caplog.text.count("afresh") == 1
    assert (False, False) in moved
    assert (True, True) in moved
    assert (True, False) not in moved


def test_gradients_of_what_is_unfrozen_are_clipped_and_measured_in_that_very_step():
    problem, _ = unfreezing(25)
    trainer = trainer_of(problem, max_grad_norm=0.1)
    for step in range(1, 31):
        told = trainer.step(problem.batch(step))
        norm = math.hypot(*(float(p.grad.norm()) for p in problem.model.parameters() if p.grad is not None))
        assert norm == pytest.approx(min(told.gradient_norm, 0.1), rel=1e-4)
        assert (problem.model[0].weight.grad is not None) == (step >= 25)


def test_a_layer_that_is_added_is_moved_too(caplog):
    problem = Problem()
    trainer = trainer_of(problem, CONFIG.replace(correction_interval=0, correct_steps=0))
    trainer.run(problem.batch, 40)
    new = nn.Linear(1, 1)
    problem.model.append(new)
    problem.optimizer.add_param_group({"params": new.parameters()})
    before = None
    while trainer.tally.steps < 120:
        before = new.bias.detach().clone()
        told = trainer.step(problem.batch(trainer.tally.steps + 1))
        if told.phase is Phase.PREDICT and trainer.controller.steps_in_current_phase == 1:
            assert not torch.equal(new.bias, before)
            break
    assert caplog.text.count("afresh") == 1


def test_a_rollback_never_goes_back_behind_what_was_unfrozen():
    problem, layer = unfreezing(35)
    trainer = trainer_of(problem)
    trainer.run(problem.batch, 60)
    trainer.rollback_to_checkpoint()
    trainer.run(problem.batch, 120)
    assert layer.weight.requires_grad
    assert trainer.planner.groups.holds(problem.model)


def test_a_model_that_changes_within_a_horizon_ends_it():
    problem = Problem()
    problem.loss = in_the_type_of_the_model
    trainer = trainer_of(problem)
    while trainer.controller.phase is not Phase.PREDICT:
        trainer.step(problem.batch(trainer.tally.steps + 1))
    problem.model.double()
    told = trainer.step(problem.batch(1))
    assert told.phase is Phase.CORRECT
