"""The control arms: each one is the plain loop that it claims to be, to the last bit where it can."""

from itertools import count
from math import inf

import pytest
import torch
from support.sparse import Sparse
from support.toy import Toy
from torch.optim.lr_scheduler import ChainedScheduler, ConstantLR, ExponentialLR

from hybrid_sweep.control import ControlConfig, tuning_trials
from hybrid_sweep.errors import UserError
from hybrid_sweep.measure.control_optimizers import NotApplicable
from hybrid_sweep.measure.control_training import ControlTraining, HybridCurve, jump_part, run_hybrid
from hybrid_sweep.measure.reference import reference_run
from hybrid_sweep.trainer import HybridConfig
from hybrid_sweep.trainer.state import Segment

JUMPING = HybridConfig(
    warmup_steps=20,
    full_steps=10,
    max_predict_steps=20,
    confidence_threshold=0.001,
    minimum_cosine=-1.0,
    horizon_rule="fixed",
)
STILL = JUMPING.replace(predictor="frozen")
TRACE = [
    Segment("warmup", 20, 0),
    Segment("full", 10, 0),
    Segment("full", 10, 0),
    Segment("predict", 30, 0),
    Segment("correct", 5, 0),
    Segment("full", 5, 0),
    Segment("predict", 10, 0),
    Segment("correct", 5, 0),
    Segment("full", 25, 0),
]


class Scheduled(Toy):
    """Two chained schedules: the second multiplies what the first has left in the optimizer."""

    def build_scheduler(self, optimizer):
        return ChainedScheduler([ExponentialLR(optimizer, 0.97), ConstantLR(optimizer, 0.5, total_iters=30)])


class Faster(Scheduled):
    """The same recipe at three times the learning rate."""

    def build_optimizer(self, model):
        return torch.optim.SGD(model.parameters(), lr=3 * 0.005)


TOYS = [Toy(), Toy(norm=True), Toy(dropout=0.5), Scheduled()]
NAMES = ["plain", "norm", "dropout", "schedule"]


def losses(workload, arm, steps=120, **keywords):
    return ControlTraining(workload, 0, arm, steps=steps, **keywords).finish().val_loss


class TestReference:
    @pytest.mark.parametrize("workload", TOYS, ids=NAMES)
    @pytest.mark.parametrize(
        "arm",
        [
            ControlConfig(name="reference"),
            ControlConfig(name="lr", multiplier=1.0),
            ControlConfig(name="lr", multiplier=1.0, schedule_steps=120),
            ControlConfig(name="momentum", multiplier=1.0),
        ],
        ids=str,
    )
    def test_an_arm_that_changes_nothing_is_the_reference(self, workload, arm):
        reference = reference_run(workload, 0, 120, 25)
        run = ControlTraining(workload, 0, arm, steps=120).finish()
        assert (run.steps, run.val_loss) == (reference.steps, reference.val_loss)
        assert run.val_metric == reference.val_metric
        assert run.backward_calls == run.steps

    def test_truncated_is_its_beginning(self):
        reference = reference_run(Toy(), 0, 120, 20)
        assert losses(Toy(), ControlConfig(name="truncated"), 80, eval_every=20) == reference.val_loss[:5]

    def test_seconds_are_those_of_training(self):
        run = ControlTraining(Toy(), 0, ControlConfig(name="reference"), steps=50).finish()
        assert run.seconds[0] == 0.0
        assert run.seconds == sorted(run.seconds)

    def test_the_test_split_is_left_alone_unless_asked_for(self):
        splits = []

        class Watched(Toy):
            def evaluate(self, model, split):
                splits.append(split)
                return super().evaluate(model, split)

        assert ControlTraining(Watched(), 0, ControlConfig(name="reference"), steps=50).finish().test == {}
        assert set(splits) == {"val"}
        tested = ControlTraining(Watched(), 0, ControlConfig(name="reference"), steps=50).finish(test=True)
        assert splits.count("test") == 1
        assert set(tested.test) == {"loss", "accuracy"}

    def test_without_accuracy_there_is_none(self):
        toy = Toy()
        toy.evaluate = lambda model, split: {"loss": 1.0}
        assert ControlTraining(toy, 0, ControlConfig(name="reference"), steps=5).finish().val_metric is None

    def test_a_run_that_diverges_ends_with_an_infinite_loss(self):
        run = ControlTraining(Toy(), 0, ControlConfig(name="lr", multiplier=1e6), steps=120).finish(test=True)
        assert run.val_loss[-1] == run.test["loss"] == inf
        assert run.steps[-1] < 120


class TestLearningRate:
    def test_it_is_the_recipe_with_that_rate_under_any_chained_schedule(self):
        assert losses(Scheduled(), ControlConfig(name="lr", multiplier=3.0)) == pytest.approx(
            losses(Faster(), ControlConfig(name="reference")), rel=1e-5
        )

    def test_a_shorter_run_passes_through_the_whole_schedule(self):
        rates = []

        class Watched(Toy):
            def build_scheduler(self, optimizer):
                schedule = ExponentialLR(optimizer, 0.9)
                optimizer.register_step_pre_hook(lambda *_: rates.append(optimizer.param_groups[0]["lr"]))
                return schedule

        ControlTraining(
            Watched(), 0, ControlConfig(name="lr", multiplier=1.0, schedule_steps=120), steps=40
        ).finish()
        assert rates == pytest.approx([0.005 * 0.9 ** (3 * i) for i in range(40)])


class TestMatched:
    @pytest.mark.parametrize("workload", TOYS, ids=NAMES)
    def test_without_a_jump_it_is_the_reference(self, workload):
        trace = [Segment("warmup", 20, 0), Segment("full", 100, 0)]
        run = losses(workload, ControlConfig(name="lr_matched"), trace=trace)
        assert run == reference_run(workload, 0, 120, 25).val_loss

    @pytest.mark.parametrize("workload", [Toy(), Scheduled()], ids=["plain", "schedule"])
    def test_at_m_1_it_is_the_frozen_twin(self, workload):
        matched = losses(workload, ControlConfig(name="lr_matched", multiplier=1.0), trace=TRACE)
        assert matched == losses(workload, ControlConfig(name="frozen"), trace=TRACE)

    def test_the_part_with_jumps_begins_with_the_real_phase_before_the_first(self):
        assert jump_part(TRACE) == (31, 95, 65 / 15)

    def test_no_jump_no_part(self):
        assert jump_part(TRACE[:3]) == (1, 0, 1.0)

    def test_the_rate_is_scaled_on_the_real_steps_of_that_part_alone(self):
        rates = []

        class Inside(torch.optim.SGD):
            def _init_group(self, group, *rest):
                rates.append(group["lr"])
                return super()._init_group(group, *rest)

        toy = Toy()
        toy.build_optimizer = lambda model: Inside(model.parameters(), lr=0.005)
        run = ControlTraining(toy, 0, ControlConfig(name="lr_matched"), steps=0, trace=TRACE).finish()
        assert rates == pytest.approx([0.005] * 30 + [0.005 * 65 / 15] * 15 + [0.005] * 25)
        assert (run.steps[-1], run.backward_calls[-1]) == (120, 70)

    def test_without_a_trace_it_is_refused(self):
        with pytest.raises(UserError, match=r"lr_matched.*give the trace"):
            ControlTraining(Toy(), 0, ControlConfig(name="lr_matched"), steps=120).finish()

    @pytest.mark.parametrize("real_steps", [1, 30, 90, 119, 500])
    def test_at_equal_wall_clock_it_takes_as_many_real_steps_as_it_is_given(self, real_steps):
        hybrid = run_hybrid(Toy(), 0, JUMPING, 120)
        arm = ControlConfig(name="lr_matched", multiplier=2.0, real_steps=real_steps)
        run = ControlTraining(Toy(), 0, arm, steps=1, trace=hybrid.trace)
        curve = run.finish()
        assert (curve.backward_calls[-1], curve.steps[-1]) == (min(real_steps, 120), 120)

    def test_more_real_steps_are_the_predicted_ones_spread_over_the_run(self):
        hybrid = run_hybrid(Toy(), 0, JUMPING, 120)
        real = hybrid.backward_calls[-1]
        loaded = []

        class Watched(Toy):
            def batch(self, seed, step):
                loaded.append(step)
                return super().batch(seed, step)

        taken = []
        for more in (0, 4):
            arm = ControlConfig(name="lr_matched", multiplier=2.0, real_steps=real + more)
            ControlTraining(Watched(), 0, arm, steps=1, trace=hybrid.trace).finish()
            taken.append(set(loaded))
            loaded.clear()
        assert taken[0] < taken[1] and len(taken[1] - taken[0]) == 4
        assert max(taken[1] - taken[0]) - min(taken[1] - taken[0]) > 30


class TestFrozen:
    @pytest.mark.parametrize("workload", TOYS, ids=NAMES)
    @pytest.mark.parametrize(
        "changes",
        [
            {},
            {"correct_steps": 0},
            {"correction_interval": 6},
            {"correction_interval": 6, "correction_schedule": "adaptive"},
            {"tail": "average", "stop_fraction": 0.2},
        ],
        ids=str,
    )
    def test_it_is_the_hybrid_run_whose_jumps_stand_still(self, workload, changes):
        hybrid = run_hybrid(workload, 0, STILL.replace(**changes), 150)
        assert sum(segment.phase == "predict" for segment in hybrid.trace) >= 3
        arm = ControlConfig(name="frozen", tail=changes.get("stop_fraction"))
        frozen = ControlTraining(workload, 0, arm, steps=150, trace=hybrid.trace, eval_every=None).finish()
        assert frozen.val_loss == hybrid.val_loss[-1:]
        assert frozen.backward_calls[-1] == hybrid.backward_calls[-1]

    def test_only_batches_that_were_looked_at_are_loaded(self):
        loaded = []

        class Watched(Toy):
            def batch(self, seed, step):
                loaded.append(step)
                return super().batch(seed, step)

        trace = [
            Segment("warmup", 3, 0),
            Segment("predict", 5, 2, 2),
            Segment("correct", 2, 0),
            Segment("full", 2, 0),
        ]
        ControlTraining(Watched(), 0, ControlConfig(name="frozen"), steps=0, trace=trace).finish()
        assert loaded == [1, 2, 3, 5, 7, 9, 10, 11, 12]
        loaded.clear()
        ControlTraining(Watched(), 0, ControlConfig(name="lr_matched"), steps=0, trace=trace).finish()
        assert loaded == [1, 2, 3, 11, 12]


class TestMomentum:
    def test_it_is_sgd_with_1_minus_1_over_m(self):
        class Heavy(Toy):
            def build_optimizer(self, model):
                return torch.optim.SGD(model.parameters(), lr=0.005, momentum=0.75)

        assert losses(Toy(), ControlConfig(name="momentum", multiplier=4.0)) == losses(
            Heavy(), ControlConfig(name="reference")
        )

    @pytest.mark.parametrize("build", [torch.optim.AdamW, lambda p: torch.optim.SGD(p, 0.1, momentum=0.9)])
    def test_another_recipe_is_refused(self, build):
        toy = Toy()
        toy.build_optimizer = lambda model: build(model.parameters())
        with pytest.raises(UserError, match="SGD without momentum"):
            ControlTraining(toy, 0, ControlConfig(name="momentum", multiplier=4.0), steps=10).finish()


class TestTuned:
    def test_the_draws_are_those_of_the_seed(self):
        arms = tuning_trials("tuned", 7, 3)
        assert arms == tuning_trials("tuned", 7, 3) != tuning_trials("tuned", 7, 4)
        assert arms[:4] == tuning_trials("tuned", 4, 3)
        assert [arm.optimizer for arm in arms] == ["sgd", "adamw"] * 3 + ["sgd"]
        sgd = sorted(arm.lr for arm in arms[::2])
        assert 1e-3 <= sgd[0] < 0.05 < sgd[-1] <= 1.0
        assert all(0.7 <= arm.momentum <= 0.98 for arm in arms)

    @pytest.mark.parametrize("decay", ["linear", "cosine"])
    @pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
    def test_it_decays_to_zero_at_exactly_that_budget(self, monkeypatch, optimizer, decay):
        rates = []
        base = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}[optimizer]
        step = base.step
        monkeypatch.setattr(
            base, "step", lambda self, *a: (rates.append(self.param_groups[0]["lr"]), step(self, *a))[1]
        )
        arm = ControlConfig(name="tuned", optimizer=optimizer, lr=0.02, decay=decay)
        run = ControlTraining(Toy(), 0, arm, steps=100).finish()
        assert len(rates) == 100
        assert rates[0] < rates[1] < max(rates) <= 0.02
        assert 0 < rates[-1] < 0.02 / 90
        assert run.val_loss[-1] < run.val_loss[0]


class TestAverage:
    @pytest.mark.parametrize("workload", TOYS, ids=NAMES)
    def test_how_often_it_is_evaluated_changes_nothing(self, workload):
        arm = ControlConfig(name="average")
        often, seldom = (losses(workload, arm, eval_every=every) for every in (1, None))
        assert often[-1] == seldom[-1]
        assert often[:91] == losses(workload, ControlConfig(name="reference"), eval_every=1)[:91]
        assert often[92] != losses(workload, ControlConfig(name="reference"), eval_every=1)[92]

    def test_it_is_the_mean_of_every_tenth_of_the_last_weights(self):
        seen = []

        class Watched(Toy):
            def evaluate(self, model, split):
                seen.append([p.detach().clone() for p in model.parameters()])
                return super().evaluate(model, split)

        ControlTraining(Watched(), 0, ControlConfig(name="reference"), steps=41, eval_every=1).finish()
        every = [seen[31], seen[41]]
        ControlTraining(Watched(), 0, ControlConfig(name="average"), steps=41, eval_every=None).finish()
        for mean, *weights in zip(seen[-1], *every, strict=True):
            assert torch.allclose(mean, torch.stack(weights).mean(0), atol=1e-6)

    def test_norms_are_estimated_for_the_averaged_weights(self):
        means = []

        class Watched(Toy):
            def evaluate(self, model, split):
                means.append(model[1].running_mean.clone())
                return super().evaluate(model, split)

        ControlTraining(
            Watched(norm=True), 0, ControlConfig(name="reference"), steps=40, eval_every=None
        ).finish()
        ControlTraining(
            Watched(norm=True), 0, ControlConfig(name="average", tail=0.01), steps=40, eval_every=None
        ).finish()
        assert not torch.equal(*means)  # the same weights but for the last bits, a mean of 20 batches


class TestScheduleFree:
    @pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
    @pytest.mark.parametrize("options", [{}, {"norm": True}, {"dropout": 0.5}], ids=str)
    def test_how_often_it_is_evaluated_changes_nothing(self, optimizer, options):
        arm = ControlConfig(name="schedule_free", optimizer=optimizer, lr=0.02)
        often, seldom = (losses(Toy(**options), arm, eval_every=every) for every in (1, None))
        assert often[-1] == seldom[-1] < often[0]

    def test_it_is_evaluated_at_the_averaged_weights_in_eval_mode(self, monkeypatch):
        import hybrid_sweep.measure.control_optimizers as recipe

        modes, made = [], []

        class Seen(recipe.SGDScheduleFree):
            def __init__(self, *args, **keywords):
                super().__init__(*args, **keywords)
                made.append(self)

            def step(self, closure=None):
                modes.append(("step", self.param_groups[0]["train_mode"]))
                return super().step(closure)

        class Watched(Toy):
            def evaluate(self, model, split):
                modes.append((split, made[0].param_groups[0]["train_mode"]))
                return super().evaluate(model, split)

        monkeypatch.setattr(recipe, "SGDScheduleFree", Seen)
        ControlTraining(
            Watched(), 0, ControlConfig(name="schedule_free", lr=0.02), steps=20, eval_every=10
        ).finish(test=True)
        assert modes.count(("step", True)) == 20
        assert {mode for mode in modes if mode[0] != "step"} == {("val", False), ("test", False)}

    def test_its_rate_is_the_recipes_where_none_is_given(self):
        own = losses(Toy(), ControlConfig(name="schedule_free", multiplier=10.0))
        assert own == losses(Toy(), ControlConfig(name="schedule_free", lr=0.05))


class TestHybrid:
    def test_it_has_what_the_matched_arm_needs(self):
        hybrid = run_hybrid(Toy(), 0, JUMPING, 120, test=True)
        assert isinstance(hybrid, HybridCurve)
        assert hybrid.steps[0] == 0 and hybrid.steps[-1] == 120 == sum(s.length for s in hybrid.trace)
        assert hybrid.backward_calls[-1] < 120
        assert set(hybrid.test) == {"loss", "accuracy"}
        matched = ControlTraining(
            Toy(), 0, ControlConfig(name="lr_matched"), steps=120, trace=hybrid.trace
        ).finish()
        assert matched.backward_calls[-1] == hybrid.backward_calls[-1]

    def test_a_shut_gate_is_the_reference(self):
        shut = run_hybrid(Toy(dropout=0.5), 0, JUMPING.replace(confidence_threshold=0.999), 120)
        reference = losses(Toy(dropout=0.5), ControlConfig(name="reference"), eval_every=1)
        assert shut.val_loss == [reference[step] for step in shut.steps]

    def test_a_run_that_diverges_is_infinite(self):
        steps = count()
        toy = Toy()
        loss = toy.loss
        toy.loss = lambda model, batch: loss(model, batch) * (float("nan") if next(steps) > 60 else 1.0)
        assert run_hybrid(toy, 0, JUMPING, 120, test=True).val_loss[-1] == inf

    def test_one_that_gives_up_with_weights_that_look_fine_is_lost_on_the_test_split_too(self):
        toy = Toy()
        loss = toy.loss
        toy.loss = lambda model, batch: (
            loss(model, batch) * (1.0 if torch.is_grad_enabled() else float("nan"))
        )
        hybrid = run_hybrid(toy, 0, JUMPING.replace(max_rollbacks=0), 120, test=True)
        assert hybrid.steps[-1] < 120
        assert hybrid.test == {"loss": inf, "accuracy": 0.0}


def test_an_arm_that_is_not_allowed_is_one_sentence():
    with pytest.raises(UserError, match=r"multiplier=0.5 of 'momentum' is not allowed: at least 1"):
        ControlConfig(name="momentum", multiplier=0.5)
    with pytest.raises(UserError, match=r"multiplier=0.*not allowed"):
        ControlConfig(name="lr", multiplier=0)


class TestWhatARecipeCannotHave:
    def test_an_optimizer_that_fails_at_its_first_step(self):
        arm = ControlTraining(Sparse(), 0, ControlConfig(name="tuned", optimizer="adamw", lr=0.01), steps=20)
        with pytest.raises(NotApplicable, match=r"arm 'tuned' cannot train this recipe \(RuntimeError: Adam"):
            arm.finish()

    def test_the_learning_rate_can_be_raised_all_the_same(self):
        assert (
            ControlTraining(Sparse(), 0, ControlConfig(name="lr", multiplier=3.0), steps=20)
            .finish()
            .steps[-1]
            == 20
        )

    @pytest.mark.parametrize(
        ("broken", "arm"), [(1, ControlConfig(name="reference")), (2, ControlConfig(name="lr"))]
    )
    def test_what_fails_later_or_in_the_recipe_is_an_error(self, broken, arm):
        class Breaks(Toy):
            def batch(self, seed, step):
                if step == broken:
                    raise RuntimeError("no such row")
                return super().batch(seed, step)

        with pytest.raises(RuntimeError, match="no such row"):
            ControlTraining(Breaks(), 0, arm, steps=20).finish()

    def test_an_optimizer_that_cannot_be_built(self, monkeypatch):
        def refuses(*_, **__):
            raise TypeError("no complex numbers")

        monkeypatch.setattr("hybrid_sweep.measure.control_training.tuned", refuses)
        with pytest.raises(NotApplicable, match=r"arm 'tuned' cannot be built here \(TypeError: no complex"):
            ControlTraining(Toy(), 0, ControlConfig(name="tuned", lr=0.01), steps=20)
