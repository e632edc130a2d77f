"""A saved run goes on in another process as if it had never been interrupted."""

import random

import numpy as np
import pytest
import torch
from support.problem import Problem
from support.states import difference, travelled

from hybrid_sweep.errors import UserError
from hybrid_sweep.trainer import HybridConfig, HybridTrainer

STEPS = 400
EASY = HybridConfig(
    warmup_steps=40, full_steps=20, max_predict_steps=30, confidence_threshold=0.01, horizon_rule="fixed"
)


class Noisy(Problem):
    """A loss that draws from every global generator."""

    def loss(self, model, batch):
        return super().loss(model, batch) * (1 + 0.01 * random.random() + 0.01 * np.random.rand())


class HalfTrained(Problem):
    """An optimizer that does not know the first layer, whose gradients add up."""

    def __init__(self):
        super().__init__()
        self.optimizer = torch.optim.SGD(self.model[2].parameters(), lr=0.05)


def with_optimizer(make, **keywords):
    def build():
        problem = Problem(**keywords)
        problem.optimizer = make(problem.model.parameters())
        return problem

    return build


def cosine(optimizer):
    return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)


def numpys(optimizer):
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: np.exp(-step / 300))


def milestones(optimizer):
    return torch.optim.lr_scheduler.MultiStepLR(optimizer, [100, 200])


CASES = {
    "jumps alone": (Problem, {}, {}),
    "micro-corrections": (Problem, {"correction_interval": 7}, {}),
    "adaptive corrections": (Problem, {"correction_interval": 7, "correction_schedule": "adaptive"}, {}),
    "calibrated": (Problem, {"correction_interval": 7, "calibration": "binned", "bptt_steps": 3}, {}),
    "momentum": (lambda: Problem(momentum=0.9), {"correction_interval": 7}, {}),
    "dropout and batch norm": (lambda: Problem(dropout=0.4, norm=True), {"correction_interval": 7}, {}),
    "adam": (with_optimizer(lambda p: torch.optim.AdamW(p, lr=1e-2), dropout=0.4), {}, {}),
    "lbfgs": (with_optimizer(lambda p: torch.optim.LBFGS(p, lr=1e-3, max_iter=2)), {}, {}),
    "schedule and clipping": (Problem, {}, {"schedule": cosine, "max_grad_norm": 0.5}),
    "schedule of NumPy's numbers": (Problem, {"correction_interval": 7}, {"schedule": numpys}),
    "schedule of milestones": (Problem, {}, {"schedule": milestones}),
    "momentum of Full phases": (Problem, {"predictor": "outer_momentum", "cycle_mode": "chained"}, {}),
    "the original's gates and confidence": (
        Problem,
        {"gates": "original", "confidence_rule": "original", "horizon_rule": "original"},
        {},
    ),
    "alarms at every turn": (Problem, {"divergence_rule": "original", "max_rollbacks": 99}, {}),
    "an ensemble": (Problem, {"predictor_members": 2, "correct_steps": 0}, {}),
    "a shut gate": (lambda: Problem(dropout=0.4), {"confidence_threshold": 0.999}, {}),
    "checkpoints without jumps": (Problem, {"confidence_threshold": 0.999, "checkpoint_interval": 60}, {}),
    "long Full phases": (Problem, {"full_steps": 120, "warmup_steps": 150}, {}),
    "other generators": (Noisy, {}, {}),
    "gradients that add up": (HalfTrained, {}, {}),
    "a rollback of gradients that add up": (HalfTrained, {}, {"nan_at": 105}),
    "a rollback": (Problem, {"correction_interval": 7}, {"nan_at": 215}),
    "a rollback with dropout": (lambda: Problem(dropout=0.4, momentum=0.9), {}, {"nan_at": 148}),
}


class Run:
    """A trainer over a fresh problem."""

    def __init__(self, build, changes, schedule=None, nan_at=None, max_grad_norm=None):
        random.seed(0), np.random.seed(0)
        self.problem = build()
        self.losses = []
        self.nan_at = nan_at
        self.trainer = HybridTrainer(
            self.problem.model,
            self.problem.optimizer,
            EASY.replace(**changes),
            loss_fn=self.loss,
            lr_scheduler=schedule(self.problem.optimizer) if schedule else None,
            max_grad_norm=max_grad_norm,
        )

    def loss(self, model, batch):
        value = self.problem.loss(model, batch)
        self.losses.append(float(value.detach()))
        return value

    def load(self, step):
        x, y = self.problem.batch(step)
        return (x, y * float("nan")) if step == self.nan_at else (x, y)

    def cycles(self):
        while self.trainer.run_cycle(self.load, STEPS):
            yield

    def everything(self):
        """All that training depends on, and no second of any clock."""
        state = self.trainer.state_dict()
        meter = state.pop("meter")
        return state | {"calls": {kind: work[2] for kind, work in meter["work"].items()}}


def resumed(case, state):
    run = Run(*case[:2], **case[2])
    torch.manual_seed(12345), random.seed(12345), np.random.seed(12345)
    run.trainer.load_state_dict(travelled(state))
    return run


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_cut_at_every_cycle_leaves_no_trace(case):
    unbroken = Run(*case[:2], **case[2])
    list(unbroken.cycles())
    expected, statistics = unbroken.everything(), unbroken.trainer.training_statistics()

    run, losses, cuts, more = Run(*case[:2], **case[2]), [], 0, True
    while more:
        more = run.trainer.run_cycle(run.load, STEPS)
        cuts += 1
        losses += run.losses
        run = resumed(case, run.trainer.state_dict())
    alarms = "divergence_rule" in case[1]
    assert cuts >= 3
    assert (statistics.rollbacks > 0) == ("nan_at" in case[2])
    assert (statistics.warning_rate > 0.05) == alarms
    assert (statistics.predict_phases > 0) == ("confidence_threshold" not in case[1] and not alarms)
    assert losses == pytest.approx(unbroken.losses, rel=0, abs=0, nan_ok=True)
    assert difference(run.everything(), expected) is None
    assert run.trainer.training_statistics() == statistics
    assert run.trainer.trace() == unbroken.trainer.trace()


@pytest.mark.parametrize("name", ["micro-corrections", "a rollback with dropout", "other generators"])
def test_saving_changes_nothing(name):
    case = CASES[name]
    never = Run(*case[:2], **case[2])
    list(never.cycles())
    expected = never.everything()
    always = Run(*case[:2], **case[2])
    assert all(always.trainer.state_dict() for _ in always.cycles())
    assert always.losses == pytest.approx(never.losses, rel=0, abs=0, nan_ok=True)
    assert difference(always.everything(), expected) is None


@pytest.mark.parametrize("name", ["micro-corrections", "a rollback with dropout", "an ensemble"])
def test_a_cut_within_a_phase_leaves_no_trace_either(name):
    case = CASES[name]
    unbroken = Run(*case[:2], **case[2])
    expected = [unbroken.trainer.step(unbroken.load(step)).loss for step in range(1, 201)]
    run = Run(*case[:2], **case[2])
    seen = []
    for step in range(1, 201):
        if step % 13 == 0:
            run = resumed(case, run.trainer.state_dict())
        seen.append(run.trainer.step(run.load(step)).loss)
    assert seen == pytest.approx(expected, rel=0, abs=0, nan_ok=True)
    assert difference(run.everything(), unbroken.everything()) is None


def test_more_residuals_than_the_store_holds():
    case = (Problem, {"full_steps": 150, "warmup_steps": 1100, "correction_interval": 3}, {})
    runs = [Run(*case[:2]), Run(*case[:2])]
    for run in runs:
        run.trainer.run(run.load, 1900)
    runs[1] = resumed(case, runs[1].trainer.state_dict())
    for run in runs:
        run.trainer.run(run.load, 2300)
    assert len(runs[0].trainer.planner.residuals) == 1000
    assert runs[0].trainer.tally.micro_corrections > 15
    assert difference(runs[1].everything(), runs[0].everything()) is None


def test_seconds_add_up():
    run = Run(*CASES["jumps alone"][:2])
    run.trainer.run(run.load, 200)
    before = run.trainer.meter.seconds()
    other = resumed(CASES["jumps alone"], run.trainer.state_dict())
    assert other.trainer.meter.seconds() == before
    assert other.trainer.meter.plain() == run.trainer.meter.plain()
    other.trainer.run(other.load, 400)
    after = other.trainer.meter.seconds()
    assert all(after[kind] > before[kind] for kind in after if kind not in ("forward", "score"))


def test_a_state_is_a_copy():
    run = Run(*CASES["momentum"][:2])
    run.trainer.run(run.load, 200)
    state = run.trainer.state_dict()
    then = travelled(state)
    run.trainer.run(run.load, 400)
    assert difference(travelled(state), then) is None


@pytest.mark.parametrize("name", ["gradients that add up", "dropout and batch norm"])
def test_a_trainer_takes_up_a_state_of_its_own_past(name):
    build, changes, _ = CASES[name]
    run = Run(build, changes, max_grad_norm=0.5)
    state = travelled(run.trainer.state_dict())
    ends = []
    for _ in range(2):
        run.trainer.run(run.load, 120)
        ends.append(run.everything())
        run.trainer.load_state_dict(state)
    assert difference(*ends) is None


def test_another_configuration_is_refused():
    state = Run(Problem, {}).trainer.state_dict()
    with pytest.raises(UserError, match="max_predict_steps=30, this one 40"):
        Run(Problem, {"max_predict_steps": 40}).trainer.load_state_dict(state)


def test_an_alarm_stays_one_alarm():
    state = Run(Problem, {}).trainer.state_dict()
    state["recovery"]["reduced"] = True
    assert resumed(CASES["jumps alone"], state).trainer.state_dict()["recovery"]["reduced"] is True


@pytest.mark.parametrize(
    "predictor", ["ema", "outer_momentum", "ema_nesterov", "dmd", "rre", "outer_nesterov", "shuffled"]
)
def test_no_state_that_was_handed_out_changes_whatever_is_trained_and_remembered_after_it(predictor):
    settings = EASY.replace(predictor=predictor, minimum_cosine=-1.0)

    def fresh():
        problem = Problem()
        return problem, HybridTrainer(problem.model, problem.optimizer, settings, loss_fn=problem.loss)

    problem, trainer = fresh()
    states = []

    def save():
        state = trainer.state_dict()
        states.append((state, travelled(state)))
        trainer.at_decisions(None)

    for step in (80, 120, 200):  # each with several checkpoints of its own to come
        trainer.at_decisions(save)
        trainer.run(problem.batch, step)
    trainer.take_checkpoint(), trainer.take_checkpoint()
    states.append((state := trainer.state_dict(), travelled(state)))
    for _ in range(2):  # and of a run that has taken it up
        other_problem, other = fresh()
        other.load_state_dict(state)
        other.take_checkpoint(), other.take_checkpoint()
        other.run(other_problem.batch, 320)
        other.rollback_to_checkpoint()
        other.take_checkpoint()
    trainer.rollback_to_checkpoint()
    trainer.run(problem.batch, 320)
    assert len(states) >= 3
    assert all(difference(travelled(state), kept) is None for state, kept in states)
    assert trainer.training_statistics().predict_phases >= 2
