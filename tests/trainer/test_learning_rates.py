"""Schedules: torch's, several, and a user's own with nothing but `step`."""

import pytest
from support.problem import Problem
from torch.optim import lr_scheduler as torchs

from hybrid_sweep.errors import UserError
from hybrid_sweep.trainer.config import HybridConfig
from hybrid_sweep.trainer.learning_rates import as_schedule
from hybrid_sweep.trainer.train_step import TrainStep
from hybrid_sweep.trainer.trainer import HybridTrainer

N = 60


class Table:
    """A user's own: a rate a step, and an IndexError after the last."""

    def __init__(self, optimizer, steps=N):
        self.optimizer, self.done = optimizer, 0
        self.rates = [0.05 * (1 - t / (2 * steps)) for t in range(steps)]
        self._set()

    def _set(self):
        for group in self.optimizer.param_groups:
            group["lr"] = self.rates[self.done]

    def step(self):
        self.done += 1
        self._set()


class Drawn:
    def __init__(self, optimizer):
        self.rates = iter([0.1, 0.2])

    def step(self):
        next(self.rates)


MAKERS = {
    "one cycle": lambda o: torchs.OneCycleLR(o, max_lr=0.05, total_steps=N),
    "table": Table,
    "lambda": lambda o: torchs.LambdaLR(o, lambda t, rates=tuple(1 - t / N for t in range(N)): rates[t]),
    "sequence": lambda o: torchs.SequentialLR(
        o, [torchs.LinearLR(o, total_iters=5), torchs.CosineAnnealingLR(o, T_max=N - 5)], [5]
    ),
    "chain": lambda o: torchs.ChainedScheduler([torchs.LinearLR(o), torchs.ExponentialLR(o, 0.99)]),
    "cyclic": lambda o: torchs.CyclicLR(o, 0.001, 0.05, step_size_up=7, cycle_momentum=False),
    "restarts": lambda o: torchs.CosineAnnealingWarmRestarts(o, T_0=9, T_mult=2),
    "list": lambda o: [torchs.ExponentialLR(o, 0.99), torchs.StepLR(o, 10)],
}


def hybrid(make):
    problem = Problem(momentum=0.9)
    config = HybridConfig(
        warmup_steps=5, full_steps=5, max_predict_steps=6, confidence_threshold=0.001, horizon_rule="fixed",
        minimum_cosine=-1.0, guard_tolerance=1e9,
    )  # fmt: skip
    trainer = HybridTrainer(
        problem.model, problem.optimizer, config, loss_fn=problem.loss, lr_scheduler=make(problem.optimizer)
    )
    trainer.plain.schedule_steps = N
    return trainer, problem


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())
@pytest.mark.filterwarnings("ignore")
def test_every_step_has_its_own_rate_whatever_was_predicted_or_rolled_back(make):
    plain, problem = hybrid(make)
    rates = []
    for t in range(1, N + 1):
        rates.append(plain.plain.learning_rate)
        plain.plain(problem.batch(t))
    assert len(set(rates)) > 3

    trainer, problem = hybrid(make)
    for until in range(7, N - 1, 7):
        trainer.run(problem.batch, until)
        assert trainer.plain.learning_rate == pytest.approx(rates[until])
        trainer.rollback_to_checkpoint()
        assert trainer.plain.learning_rate == pytest.approx(rates[until])
    saved = trainer.state_dict()
    other, _ = hybrid(make)
    other.load_state_dict(saved)
    assert other.plain.learning_rate == trainer.plain.learning_rate
    trainer.run(problem.batch, N)
    assert trainer.tally.rollbacks > 3


def test_a_schedule_is_not_stepped_past_the_end_of_what_it_is_made_for():
    problem = Problem()
    step = TrainStep(problem.model, problem.optimizer, problem.loss, Table(problem.optimizer, 5))
    step.schedule_steps = 5
    for t in range(1, 9):
        step(problem.batch(t))
    assert step.learning_rate == pytest.approx(0.05 * 0.6)


def test_one_that_ends_too_early_is_a_sentence():
    problem = Problem()
    step = TrainStep(problem.model, problem.optimizer, problem.loss, Table(problem.optimizer, 5))
    with pytest.raises(UserError, match=r"schedule Table ends after 4 steps \(IndexError: .*\): make it for"):
        step.skip(10)


class TestRefusing:
    def test_a_step_that_needs_an_argument(self):
        class Timed(Table):
            def step(self, epoch):
                pass

        with pytest.raises(UserError, match=r"a Timed that cannot be stepped by step\(\)"):
            as_schedule(Timed(Problem().optimizer))

    def test_a_place_in_an_iterator(self):
        with pytest.raises(UserError, match=r"Drawn keeps its place in an iterator \(rates\)"):
            as_schedule(Drawn(Problem().optimizer))

    def test_nothing_that_could_be_put_back(self):
        class Slotted:
            __slots__ = ("done",)

            def step(self):
                pass

        with pytest.raises(UserError, match="Slotted has no attributes that could be put back"):
            as_schedule(Slotted())
