"""Plain training: what it trains, when it is evaluated, and what lies between two evaluations."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.toy import Toy

from hybrid_sweep.errors import UserError
from hybrid_sweep.measure.reference import Reference, reference_run, start


def reference(steps, val_loss, val_metric=None):
    return Reference(seed=0, steps=steps, val_loss=val_loss, val_metric=val_metric)


def plain_loop(toy, seed, steps):
    """The loop that anyone would write; returns held-out losses after each step, from step 0."""
    model = toy.build_model(seed)
    optimizer = toy.build_optimizer(model)
    torch.manual_seed(seed)
    losses = [toy.evaluate(model, "val")["loss"]]
    for step in range(1, steps + 1):
        optimizer.zero_grad()
        toy.loss(model, toy.batch(seed, step)).backward()
        optimizer.step()
        losses.append(toy.evaluate(model, "val")["loss"])
    return losses


class TestRun:
    @pytest.mark.parametrize("options", [{}, {"dropout": 0.5, "norm": True}])
    def test_it_is_the_plain_loop_to_the_last_bit(self, options):
        expected = plain_loop(Toy(**options), seed=3, steps=60)
        run = reference_run(Toy(**options), 3, 60, eval_every=25)
        assert run.steps == [0, 25, 50, 60]
        assert run.val_loss == [expected[step] for step in run.steps]
        assert run.val_metric == pytest.approx([1 / (1 + loss) for loss in run.val_loss])
        assert run.peak_memory_bytes is None

    def test_how_often_it_is_evaluated_changes_nothing(self):
        class Wasteful(Toy):
            """Draws random numbers where it evaluates, as a DataLoader does, and leaves eval mode on."""

            def evaluate(self, model, split):
                torch.rand(1)
                result = super().evaluate(model, split)
                model.eval()
                return result

        seldom = reference_run(Wasteful(dropout=0.5), 0, 60, eval_every=60)
        often = reference_run(Wasteful(dropout=0.5), 0, 60, eval_every=1)
        assert seldom.val_loss[-1] == often.val_loss[-1]
        assert seldom.val_loss[-1] == reference_run(Toy(dropout=0.5), 0, 60, eval_every=60).val_loss[-1]

    def test_the_last_step_is_evaluated_once(self):
        assert reference_run(Toy(), 0, 50, 25).steps == [0, 25, 50]

    def test_the_schedule_is_the_workloads_own(self):
        class Scheduled(Toy):
            def build_scheduler(self, optimizer):
                return torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.0)  # learns in step 1 only

        run = reference_run(Scheduled(), 0, 30, eval_every=1)
        assert run.val_loss[0] > run.val_loss[1]
        assert set(run.val_loss[1:]) == {run.val_loss[1]}

    def test_every_start_is_the_same(self):
        one, other = start(Toy(dropout=0.5), 5), start(Toy(dropout=0.5), 5)
        assert torch.equal(one.parameters[0], other.parameters[0])
        first = torch.rand(3)
        start(Toy(), 5)
        assert torch.equal(torch.rand(3), first)

    def test_on_a_cpu_a_gpu_is_left_alone(self, monkeypatch):
        def touched(*_):
            pytest.fail("CUDA was asked")

        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", touched)
        monkeypatch.setattr(torch.cuda, "max_memory_allocated", touched)
        assert reference_run(Toy(), 0, 2, eval_every=1).peak_memory_bytes is None

    @pytest.mark.parametrize(
        ("result", "quality", "message"),
        [
            ({"accuracy": 0.5}, "loss_ratio", "no 'loss'"),
            (0.5, "loss_ratio", "no 'loss'"),
            (None, "loss_ratio", "no 'loss'"),
            ({"loss": torch.ones(2)}, "loss_ratio", r"loss=tensor\(\[1., 1.\]\): return a number"),
            ({"loss": 1.0, "accuracy": None}, "loss_ratio", "accuracy=None"),
            ({"loss": float("nan")}, "loss_ratio", "nan at step 0: lower the learning rate"),
            ({"loss": float("inf")}, "loss_gap", "inf at step 0"),
            ({"loss": 0.0}, "loss_ratio", "not above 0.*loss_gap"),
            ({"loss": -1.5}, "loss_ratio", "-1.5 is not above 0.*at step 0"),
            ({"loss": 1.0}, "accuracy_ratio", "accuracy"),
        ],
    )
    def test_what_nothing_can_be_compared_with_is_refused(self, result, quality, message):
        toy = Toy(quality=quality)
        toy.evaluate = lambda model, split: result
        with pytest.raises(UserError, match=message):
            reference_run(toy, 0, 10, 5)

    @pytest.mark.parametrize("quality", ["loss_ratio", "loss_gap", "accuracy_ratio"])
    def test_a_loss_that_ends_above_its_beginning_is_refused_unless_accuracy_counts(self, quality):
        toy, losses = Toy(quality=quality), iter([2.0, 900.0, 2.1])
        toy.evaluate = lambda model, split: {"loss": next(losses), "accuracy": 0.5}
        if quality == "accuracy_ratio":
            assert reference_run(toy, 0, 10, 5).val_loss == [2.0, 900.0, 2.1]
            return
        with pytest.raises(
            UserError, match=r"ends at a held-out loss of 2.1, above the 2 .*lower the learning"
        ):
            reference_run(toy, 0, 10, 5)

    def test_tensors_of_one_number_are_numbers(self):
        toy = Toy()
        toy.evaluate = lambda model, split: {"loss": torch.tensor(0.5), "accuracy": torch.tensor([0.25])}
        kept = json.loads(json.dumps(reference_run(toy, 0, 2, 1).to_dict()))
        assert (kept["val_loss"], kept["val_metric"]) == ([0.5] * 3, [0.25] * 3)

    def test_losses_below_zero_are_fine_where_a_gap_is_asked_for(self):
        toy = Toy(quality="loss_gap")
        toy.evaluate = lambda model, split: {"loss": -1.0}
        assert reference_run(toy, 0, 2, 1).loss_at(2) == -1.0


class TestBetweenEvaluations:
    def test_loss_is_interpolated_in_log_loss(self):
        run = reference([0, 10, 20], [4.0, 1.0, 0.25])
        assert run.loss_at(5) == pytest.approx(2.0)
        assert run.loss_at(15) == pytest.approx(0.5)

    def test_and_linearly_where_a_loss_is_not_above_zero(self):
        assert reference([0, 10], [1.0, -1.0]).loss_at(5) == pytest.approx(0.0)

    def test_accuracy_is_interpolated_linearly(self):
        assert reference([0, 10], [1.0, 1.0], [0.2, 0.8]).metric_at(5) == pytest.approx(0.5)
        assert reference([0, 10], [1.0, 1.0]).metric_at(5) is None

    def test_the_target_is_where_110_percent_of_it_is_the_whole_run(self):
        assert reference([0, 100, 110], [4.0, 0.3, 0.2]).target() == (0.3, 100)

    @pytest.mark.parametrize(("losses", "step"), [([4.0, 0.3, 0.3, 0.2], 50), ([4.0, 1.0, 2.0, 2.0], 25)])
    def test_plain_training_has_the_target_where_it_first_had_it(self, losses, step):
        loss, found = reference([0, 50, 100, 110], losses).target()
        assert (loss, found) == (losses[2], pytest.approx(step))

    @given(st.lists(st.floats(1e-6, 1e6), min_size=2, max_size=9), st.integers(1, 40), st.data())
    def test_exact_where_evaluated_and_between_its_neighbours_elsewhere(self, losses, every, data):
        steps = [i * every for i in range(len(losses))]
        run = reference(steps, losses)
        assert [run.loss_at(step) for step in steps] == losses
        step = data.draw(st.integers(0, steps[-1]))
        left = step // every
        around = losses[left : left + 2]
        assert min(around) * (1 - 1e-9) <= run.loss_at(step) <= max(around) * (1 + 1e-9)

    def test_plain_data(self):
        run = reference([0, 1], [2.0, 1.0])
        assert Reference(**run.to_dict()) == run


class Scored(Toy):
    """A toy with a metric of its own, of which the caller says the values."""

    values = (0.2, 0.5, 0.9)

    def evaluate(self, model, split):
        self.seen = getattr(self, "seen", -1) + 1
        return {"loss": 1.0 + self.seen, "auc": self.values[min(self.seen, 2)]}


class TestMetric:
    def test_it_is_kept_by_its_name_and_may_rise_while_the_loss_does(self):
        toy = Scored()
        toy.metric = "auc"
        kept = reference_run(toy, 0, 20, 10)
        assert kept.val_metric == [0.2, 0.5, 0.9]
        assert kept.gained("max_ratio") == pytest.approx(0.7)
        assert kept.gained("min_gap") == pytest.approx(-0.7)

    @pytest.mark.parametrize(
        ("metric", "mode", "quality", "values", "message"),
        [
            (
                "f1",
                "max",
                "loss_ratio",
                (1, 1, 1),
                "metric = 'f1' needs evaluate.* \"f1\": it returns auc, loss",
            ),
            ("auc", "max", "loss_ratio", (0.1, -0.1, 1), "auc=-0.1 at step 10, of which no ratio"),
            ("auc", "min", "loss_ratio", (0.1, 0.0, 1), "auc=0 at step 10, of which no ratio"),
            ("auc", "max", "loss_gap", (0.1, float("nan"), 1), "auc=nan at step 10"),
        ],
    )
    def test_what_cannot_be_compared_is_refused(self, metric, mode, quality, values, message):
        toy = Scored(quality=quality)
        toy.metric, toy.mode, toy.values = metric, mode, values
        with pytest.raises(UserError, match=message):
            reference_run(toy, 0, 20, 10)

    def test_a_gap_allows_any_number(self):
        toy = Scored(quality="loss_gap")
        toy.metric, toy.values = "auc", (-3.0, -2.0, -1.0)
        assert reference_run(toy, 0, 20, 10).gained("max_gap") == 2.0
