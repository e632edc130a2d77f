"""A schedule made for N steps is stepped N times at most, whatever measures, trains or rolls back."""

import pytest
import torch
from support.toy import Toy
from torch.optim import lr_scheduler as torchs

from hybrid_sweep.control import ControlConfig
from hybrid_sweep.errors import UserError
from hybrid_sweep.measure import batch_size
from hybrid_sweep.measure.control_costs import measure_step_ratio
from hybrid_sweep.measure.control_training import ControlTraining, run_hybrid
from hybrid_sweep.measure.costs import measure_unit_costs
from hybrid_sweep.measure.curvature import measure_curvature
from hybrid_sweep.measure.reference import hybrid_of, reference_run, start
from hybrid_sweep.measure.schedule import still_made_for
from hybrid_sweep.measure.workload_builder import WorkloadOrder, warm_up
from hybrid_sweep.trainer.config import HybridConfig

JUMPS = HybridConfig(
    warmup_steps=10, full_steps=5, max_predict_steps=20, confidence_threshold=0.001, horizon_rule="fixed"
)


class Rates:
    """A user's own schedule: `step` alone, a rate a step, and an IndexError after the last."""

    def __init__(self, optimizer, steps):
        self.optimizer, self.done, self.steps = optimizer, 0, steps
        self.set()

    def set(self):
        if self.done >= self.steps:
            raise IndexError(f"no rate {self.done}")
        self.optimizer.param_groups[0]["lr"] = 0.005 * (1 - self.done / (2 * self.steps))

    def step(self):
        self.done += 1
        self.set()


class OneCycle(Toy):
    steps = 60

    def build_scheduler(self, optimizer):
        return torchs.OneCycleLR(optimizer, max_lr=0.005, total_steps=self.steps, cycle_momentum=False)


class Own(Toy):
    steps = 60

    def build_scheduler(self, optimizer, steps):
        return Rates(optimizer, steps)


class Stuck(Toy):
    """Knows its length before a sweep says another one."""

    steps = 60

    def __init__(self):
        super().__init__()
        self.total = self.steps

    def build_scheduler(self, optimizer):
        return torchs.CosineAnnealingLR(optimizer, T_max=self.total)


@pytest.mark.parametrize("kind", [OneCycle, Own])
class TestItIsNotDrivenPastItsEnd:
    def test_unit_costs(self, kind):
        assert measure_unit_costs(kind(), 0, JUMPS).plain_step > 0

    def test_warm_up(self, kind):
        workload = kind()
        workload.steps = 8  # of which a warm-up wants 30
        warm_up(workload)

    def test_curvature(self, kind):
        assert len(measure_curvature(kind(), 0, 60).eta_lambda) == 5

    def test_step_ratios(self, kind):
        assert (
            measure_step_ratio(kind(), 0, ControlConfig(name="lr", multiplier=2.0, schedule_steps=60), 60) > 0
        )

    def test_packing(self, kind, monkeypatch):
        monkeypatch.setattr(batch_size, "BLOCK", 8)
        assert batch_size.obstacle(kind()) == ""
        assert batch_size.fused_ratio(kind(), 2) > 0

    def test_reference_and_hybrid(self, kind):
        assert reference_run(kind(), 0, 60, 25).steps[-1] == 60
        assert run_hybrid(kind(), 0, JUMPS, 60).steps[-1] == 60

    @pytest.mark.parametrize("real_steps", [20, 90])
    def test_controls_shorter_and_longer_than_the_run(self, kind, real_steps):
        for arm in (
            ControlConfig(name="truncated"),
            ControlConfig(name="lr", multiplier=3.0, schedule_steps=60),
            ControlConfig(name="tuned", lr=0.01),
        ):
            assert (
                ControlTraining(kind(), 0, arm, steps=real_steps, recipe_steps=60).finish().steps[-1]
                == real_steps
            )

    def test_rollbacks(self, kind):
        workload = kind()
        trainer = hybrid_of(start(workload, 0), JUMPS)
        for until in (20, 40, 59):
            trainer.run(lambda step: workload.batch(0, step), until)
            rate = trainer.plain.learning_rate
            trainer.rollback_to_checkpoint()
            assert trainer.plain.learning_rate == pytest.approx(rate)
        trainer.run(lambda step: workload.batch(0, step), 60)

    def test_trying_thresholds_near_the_end(self, kind):
        workload = kind()
        trainer = hybrid_of(start(workload, 0), JUMPS)
        trainer.plain.schedule_steps = None  # as in a loop of one's own
        trainer.run(lambda step: workload.batch(0, step), 40)
        rate = trainer.plain.learning_rate
        trainer.auto_tune_confidence(
            lambda step: workload.batch(0, step), lambda m: workload.evaluate(m, "val")["loss"], steps=40
        )
        assert trainer.plain.learning_rate == rate
        trainer.run(lambda step: workload.batch(0, step), 59)


class TestTheStepsOfTheSweep:
    def test_a_schedule_that_ends_before_the_run_is_refused_before_it_trains(self):
        class Short(OneCycle):
            def batch(self, seed, step):
                raise AssertionError("nothing is trained")

        workload = Short()
        with pytest.raises(UserError, match=r"OneCycleLR ends after .* 80 steps: take them from self.steps"):
            reference_run(workload, 0, 80, 25)

    def test_build_scheduler_is_told(self):
        plain = start(Own(), 0, 90)
        plain.skip(89)
        assert plain.learning_rate == pytest.approx(0.005 * (1 - 89 / 180))

    def test_a_keyword_of_that_name_alone_gets_them(self):
        class Decays(Toy):
            def build_scheduler(self, optimizer, gamma=0.5, *, steps=3):
                assert (gamma, steps) == (0.5, 90)
                return torchs.StepLR(optimizer, steps, gamma)

        start(Decays(), 0, 90)

    def test_self_steps_are_those_of_the_sweep(self, tmp_path):
        order = WorkloadOrder(name=f"{__file__}:OneCycle", keywords={}, device="cpu", steps=90)
        workload = order.load()
        assert workload.steps == 90
        assert start(workload, 0).scheduler.total_steps == 90
        assert still_made_for(workload, 60, 90) == ""

    def test_a_schedule_that_they_do_not_reach_is_warned_of(self):
        workload = WorkloadOrder(name=f"{__file__}:Stuck", keywords={}, device="cpu", steps=90).load()
        assert (
            "steps=90 does not reach the learning-rate schedule of Stuck, which is made for 60 (Cosine"
            in (still_made_for(workload, 60, 90))
        )
        assert still_made_for(workload, 60, 60) == ""

    def test_steps_that_cannot_be_set(self):
        order = WorkloadOrder(name=f"{__file__}:Fixed", keywords={}, device="cpu", steps=90)
        with pytest.raises(UserError, match=r"steps=90 of the sweep cannot be set on workload .*:Fixed"):
            order.load()


class Fixed(Toy):
    @property
    def steps(self):
        return 60


class Clipped(Toy):
    max_grad_norm = 0.3


class TestClipping:
    def test_the_workloads_own_and_the_sweeps(self):
        own = WorkloadOrder(name=f"{__file__}:Clipped", keywords={}, device="cpu")
        sweeps = WorkloadOrder(name=f"{__file__}:Clipped", keywords={}, device="cpu", max_grad_norm=0.1)
        for order, limit in ((own, 0.3), (sweeps, 0.1)):
            workload = order.load()
            for plain in (start(workload, 0), hybrid_of(start(workload, 0), JUMPS).plain):
                plain(workload.batch(0, 1))
                norm = torch.stack([p.grad.norm() for p in plain.parameters]).norm()
                assert norm == pytest.approx(limit, rel=1e-4)
                assert plain.gradient_norm() > 0.3

    def test_another_limit_is_another_run(self):
        order = WorkloadOrder(name=f"{__file__}:Clipped", keywords={}, device="cpu")
        other = WorkloadOrder(name=f"{__file__}:Clipped", keywords={}, device="cpu", max_grad_norm=0.1)
        assert order.runs(order.load()).key() != other.runs(other.load()).key()
