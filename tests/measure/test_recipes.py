"""Recipes as users have them go through all that a sweep does with a workload: nothing here needs Ray."""

import pytest
import schedulefree
import torch
import torch.nn.functional as F
from support.sparse import Sparse
from support.toy import Toy
from torch.optim import lr_scheduler

from hybrid_sweep.control import ControlConfig, tuning_trials
from hybrid_sweep.errors import UserError
from hybrid_sweep.measure.batch_size import obstacle
from hybrid_sweep.measure.checkpoint import from_bytes, to_bytes
from hybrid_sweep.measure.control_costs import measure_step_ratio
from hybrid_sweep.measure.control_optimizers import NotApplicable
from hybrid_sweep.measure.control_training import ControlTraining
from hybrid_sweep.measure.costs import COST_NAMES, UnitCosts, measure_unit_costs
from hybrid_sweep.measure.curvature import measure_curvature
from hybrid_sweep.measure.hybrid_run import HybridRun
from hybrid_sweep.measure.recipe_key import recipe_of
from hybrid_sweep.measure.reference import held_out, reference_run, start
from hybrid_sweep.measure.workload_builder import warm_up
from hybrid_sweep.measure.workload_check import refuse, repeats
from hybrid_sweep.trainer.config import HybridConfig

JUMPS = HybridConfig(
    warmup_steps=10, full_steps=5, max_predict_steps=8, confidence_threshold=0.001, correction_interval=4,
    correct_steps=2, horizon_rule="fixed", minimum_cosine=-1.0, guard_tolerance=1e9,
)  # fmt: skip

COSTS = UnitCosts(**dict.fromkeys(COST_NAMES, 1.0))


class Short(Toy):
    steps = 60


class Lbfgs(Short):
    def build_optimizer(self, model):
        return torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=3, line_search_fn="strong_wolfe")


class Adafactor(Short):
    def build_optimizer(self, model):
        return torch.optim.Adafactor(model.parameters())


class MuonAndAdam(Short):
    def build_optimizer(self, model):
        matrices = [p for p in model.parameters() if p.ndim == 2]
        return [
            torch.optim.Muon(matrices, lr=0.01),
            torch.optim.AdamW([p for p in model.parameters() if p.ndim < 2], lr=0.003),
        ]

    def build_scheduler(self, optimizers, steps):
        return [lr_scheduler.OneCycleLR(o, 0.01, total_steps=steps, cycle_momentum=False) for o in optimizers]


class ScheduleFree(Short):
    def build_optimizer(self, model):
        return schedulefree.AdamWScheduleFree(model.parameters(), lr=0.02, warmup_steps=5)


class WarmRestarts(Short):
    def build_scheduler(self, optimizer):
        return lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=7, T_mult=2)


class Table(Short):
    def build_scheduler(self, optimizer):
        table = [1 - t / (2 * self.steps) for t in range(self.steps)]
        return lr_scheduler.LambdaLR(optimizer, lambda t: table[t])


class Residual(Short):
    """A loss that differentiates, as a PINN's."""

    def loss(self, model, batch):
        x = batch[0].clone().requires_grad_(True)
        u = model(x)
        (slope,) = torch.autograd.grad(u.sum(), x, create_graph=True)
        return F.mse_loss(u, batch[1]) + 0.01 * (slope.sum(1) - 4).square().mean()


class NoClosure(Short):
    class Own(torch.optim.SGD):
        def step(self):
            super().step()

    def build_optimizer(self, model):
        return self.Own(model.parameters(), lr=0.005)


class Alternating(Short):
    """What two optimizers that take turns look like: one class of the user's, with its own loss in it."""

    def build_optimizer(self, model):
        parts = [torch.optim.SGD(layer.parameters(), lr=0.005) for layer in (model[0], model[-1])]

        class Turns:
            done = 0

            @property
            def param_groups(self):
                return [group for part in parts for group in part.param_groups]

            def zero_grad(self):
                for part in parts:
                    part.zero_grad()

            def step(self, closure):
                closure()
                parts[self.done % 2].step()
                self.done += 1

            def state_dict(self):
                return {"done": self.done, "parts": [part.state_dict() for part in parts]}

            def load_state_dict(self, state):
                self.done = state["done"]
                for part, own in zip(parts, state["parts"], strict=True):
                    part.load_state_dict(own)

        return Turns()


RECIPES = [
    *(Lbfgs, Adafactor, MuonAndAdam, ScheduleFree, NoClosure, Alternating, Sparse),
    *(WarmRestarts, Table, Residual),
]


def through(trial):
    while not trial.done:
        trial.report()
    return trial.result()


@pytest.mark.parametrize("kind", RECIPES, ids=lambda kind: kind.__name__)
@pytest.mark.filterwarnings("ignore")
class TestThroughTheSweep:
    def test_looks_and_preparations(self, kind):
        warm_up(kind())
        refuse(repeats(kind(), kind))
        assert recipe_of(kind()).key() == recipe_of(kind()).key()
        assert measure_unit_costs(kind(), 0, JUMPS).plain_step > 0
        measure_curvature(kind(), 0, kind.steps)
        obstacle(kind())

    def test_a_trial_and_one_that_goes_on_from_its_checkpoint(self, kind):
        steps = kind.steps
        reference = reference_run(kind(), 0, steps, 20)
        whole = HybridRun(kind(), JUMPS, reference, COSTS, {})
        result = through(whole)
        assert (whole.state, result["steps"], whole.reason) == ("done", steps, "")
        assert result["quality_vs_frozen"] is not None
        first, second = (HybridRun(kind(), JUMPS, reference, COSTS) for _ in range(2))
        first.report()
        second.load_state_dict(from_bytes(to_bytes(first.state_dict())))
        assert through(second)["val_loss"] == through(first)["val_loss"] == result["val_loss"]

    def test_a_shut_gate_is_the_reference(self, kind):
        reference = reference_run(kind(), 0, kind.steps, 20)
        shut = HybridRun(kind(), JUMPS.replace(confidence_threshold=0.999), reference, COSTS)
        assert through(shut)["val_loss"] == reference.val_loss[-1]

    def test_controls_train_or_say_why_not(self, kind):
        arms = [
            ControlConfig(name="lr", multiplier=1.5, schedule_steps=kind.steps),
            ControlConfig(name="average"),
            ControlConfig(name="momentum", multiplier=2.0), *tuning_trials("tuned", 2, 0),
            *tuning_trials("schedule_free", 2, 0),
        ]  # fmt: skip
        trained = 0
        for arm in arms:
            try:
                ControlTraining(kind(), 0, arm, steps=20, recipe_steps=kind.steps).finish(test=True)
                assert measure_step_ratio(kind(), 0, arm, kind.steps) > 0
                trained += 1
            except NotApplicable as error:
                assert "leave it out" in str(error)
        assert trained >= 2


def test_schedule_free_hands_out_its_own_weights_and_trains_on():
    workload = ScheduleFree()
    plain = start(workload, 0)
    for t in range(1, 21):
        plain(workload.batch(0, t))
    trained = [p.clone() for p in plain.parameters]
    found = held_out(workload, plain.model, optimizer=plain.optimizer)["loss"]
    assert all(torch.equal(p, before) for p, before in zip(plain.parameters, trained, strict=True))
    plain.optimizer.eval()
    assert found == held_out(workload, plain.model)["loss"] != 0
    plain.optimizer.train()
    plain(workload.batch(0, 21))


class TestRefused:
    def test_two_losses_of_a_gan(self):
        class Gan(Short):
            def loss(self, model, batch):
                loss = super().loss(model, batch)
                return loss, -loss

        with pytest.raises(UserError, match=r"the loss is a tuple: return .*several losses are added up"):
            warm_up(Gan())

    def test_an_optimizer_of_the_wrong_kind(self):
        class Named(Short):
            def build_optimizer(self, model):
                return {"all": torch.optim.SGD(model.parameters(), lr=0.1)}

        with pytest.raises(UserError, match="the optimizer is a dict without param_groups"):
            warm_up(Named())

    def test_a_schedule_of_a_metric(self):
        class Plateau(Short):
            def build_scheduler(self, optimizer):
                return lr_scheduler.ReduceLROnPlateau(optimizer)

        with pytest.raises(UserError, match="ReduceLROnPlateau needs a metric"):
            warm_up(Plateau())
