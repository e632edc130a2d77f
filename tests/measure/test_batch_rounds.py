"""Trials that are trained together are those that would have been trained alone."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.toy import Toy

from hybrid_sweep.measure.batch_rounds import Pack, train_together
from hybrid_sweep.measure.costs import UnitCosts
from hybrid_sweep.measure.hybrid_run import HybridRun
from hybrid_sweep.measure.reference import reference_run
from hybrid_sweep.trainer import HybridConfig
from trainables.regression import Regression

COSTS = UnitCosts(
    batch=0.1, plain_step=1.0, observe=0.05, update=0.5, checkpoint=0.2, jump=0.1, forward=0.4, score=0.02
)
FORCED = HybridConfig(
    warmup_steps=20,
    full_steps=10,
    horizon_rule="fixed",
    confidence_threshold=0.001,
    minimum_cosine=-1.0,
    guard_tolerance=100.0,
)
"""It predicts after every Full phase, whatever the losses are."""
REFERENCES = {seed: reference_run(Toy(), seed, 120, 10) for seed in (0, 1)}
CLOCKED = {
    *("speedup", "speedup_cpu", "speedup_bound", "loading_share"),
    *("overhead_pct", "train_seconds", "eval_seconds"),
}
COUNTED = {"speedup_counted", "backward_calls", "forward_only_calls", "behaviour", "predict_phases", "steps"}
COUNTED |= {"micro_corrections", "abort_rate", "realised_horizon_mean", "rollbacks", "backward_reduction_pct"}


TOY = Toy()


def trial(config, seed=0, packed=True, workload=TOY, reference=None):
    return HybridRun(workload, config, reference or REFERENCES[seed], COSTS, packed=packed)


def alone(one):
    while not one.done:
        one.report()
    return one.result()


def assert_agree(ours, theirs):
    """Counts are the same; what was measured of losses is, but for the order of float32 sums."""
    for name in COUNTED:
        assert ours[name] == theirs[name], name
    for name, value in theirs.items():
        if isinstance(value, float) and name not in CLOCKED | COUNTED:
            assert ours[name] == pytest.approx(value, rel=1e-4, abs=1e-6, nan_ok=True), name


class TestAgreement:
    @pytest.mark.parametrize("size", [2, 3, 8])
    @pytest.mark.parametrize("options", [{}, {"norm": True}], ids=str)
    def test_more_trials_than_places(self, size, options):
        configs = [
            FORCED.replace(max_predict_steps=h, correction_interval=i) for h in (5, 17) for i in (0, 4)
        ]
        runs = [(config, seed) for config in configs for seed in (0, 1)]
        workload = Toy(**options)
        together = [trial(config, seed, workload=workload) for config, seed in runs]
        train_together(together, size)
        for ours, (config, seed) in zip(together, runs, strict=True):
            expected = alone(trial(config, seed, packed=False, workload=workload))
            assert_agree(ours.result(), expected)
            assert expected["predict_phases"] >= 3

    def test_adam_and_a_schedule(self):
        workload = Regression(points=64, width=8, steps=150)
        reference = reference_run(workload, 0, 150, 50)
        configs = [FORCED.replace(max_predict_steps=h) for h in (5, 9)]
        together = [trial(config, workload=workload, reference=reference) for config in configs]
        train_together(together, 2)
        for ours, config in zip(together, configs, strict=True):
            expected = alone(trial(config, packed=False, workload=workload, reference=reference))
            assert_agree(ours.result(), expected)

    @settings(max_examples=6, deadline=None)
    @given(
        runs=st.lists(
            st.tuples(
                st.integers(1, 30),
                st.integers(0, 8),
                st.integers(0, 6),
                st.sampled_from([0.001, 0.999]),
                st.sampled_from(["ema", "frozen"]),
                st.integers(0, 1),
            ),
            min_size=1,
            max_size=6,
        ),
        size=st.integers(1, 4),
    )
    def test_no_decision_depends_on_who_else_is_there(self, runs, size):
        def made(packed):
            names = ("max_predict_steps", "correction_interval", "correct_steps", "confidence_threshold")
            for *values, predictor, seed in runs:
                config = FORCED.replace(predictor=predictor, **dict(zip(names, values, strict=True)))
                yield trial(config, seed, packed)

        together = list(made(True))
        train_together(together, size)
        for ours, theirs in zip(together, made(False), strict=True):
            alone(theirs)
            assert ours.trainer.trace() == theirs.trainer.trace()
            assert ours.trainer.meter.calls == theirs.trainer.meter.calls
            assert_agree(ours.result(), theirs.result())


class TestScoring:
    def test_speedup_is_that_of_counted_work(self):
        together = [trial(FORCED.replace(max_predict_steps=h)) for h in (5, 17)]
        train_together(together, 2)
        for one in together:
            result = one.result()
            assert result["speedup"] == pytest.approx(result["speedup_counted"], rel=1e-9)
            assert result["train_seconds"] == pytest.approx(COSTS.total(one.trainer.meter.calls))
            assert result["speedup_cpu"] is result["peak_memory_ratio"] is None
            assert result["speedup"] <= result["speedup_bound"]

    def test_twins_are_those_of_a_trial_alone(self):
        config = FORCED.replace(max_predict_steps=17)
        ours = [HybridRun(TOY, config, REFERENCES[seed], COSTS, {}, packed=True) for seed in (0, 1)]
        pack, results = Pack(2), {}

        def whole(one):
            while not one.done:
                yield from one.iter_report()
            return (yield from one.iter_result())

        for one in ours:
            pack.begin(one, whole(one))
        while pack.waiting:
            results.update(pack.advance())
        assert pack.fused.steps > 2 * results[ours[0]]["backward_calls"]
        expected = alone(HybridRun(Toy(), config, REFERENCES[1], COSTS, {}))
        for name in ("quality_vs_frozen", "quality_vs_lr_matched"):
            assert results[ours[1]][name] == pytest.approx(expected[name], rel=1e-4)


class TestComingAndGoing:
    def test_a_state_is_that_of_a_trial_alone_and_goes_on_alone(self):
        config = FORCED.replace(max_predict_steps=17)
        pack, ours, other = Pack(2), trial(config), trial(FORCED, 1)
        for one in (ours, other):
            pack.begin(one, one.iter_report())
        ended = []
        while ours not in ended:
            ended = [one for one, _ in pack.advance()]
        state = ours.state_dict()
        later = trial(config, packed=False)
        later.load_state_dict(state)
        assert_agree(alone(later), alone(trial(config, packed=False)))
        assert alone(later)["speedup_cpu"] is not None
        pack.leave(ours)
        again = trial(config)
        again.load_state_dict(state)
        pack.begin(again, again.iter_report())
        while not again.done:
            for one, _ in pack.advance():
                if not one.done:
                    pack.begin(one, one.iter_report())
                else:
                    pack.leave(one)
        assert_agree(again.result(), alone(trial(config, packed=False)))

    def test_a_trial_that_left_keeps_its_weights(self):
        together = [trial(FORCED.replace(max_predict_steps=h)) for h in (5, 17, 25)]
        train_together(together, 2)
        for one in together:
            kept = one.workload.evaluate(one.trainer.model, "val")["loss"]
            assert kept == one.result()["val_loss"]

    def test_a_diverged_trial_is_a_result_and_the_others_go_on(self):
        lost, beside = trial(FORCED), trial(FORCED)
        lost.trainer.planner.groups.vector.fill_(math.nan)
        lost.trainer.take_checkpoint()
        train_together([lost, beside], 2)
        assert lost.state == "diverged"
        assert "nan" in lost.reason
        assert lost.result()["quality"] == 0.0
        assert_agree(beside.result(), alone(trial(FORCED, packed=False)))

    def test_an_error_is_raised_within_the_run_that_made_it(self):
        broken = trial(FORCED.replace(max_predict_steps=30), workload=Toy({30: "raise"}))
        beside = trial(FORCED)

        def guarded(one):
            try:
                while not one.done:
                    yield from one.iter_report()
            except RuntimeError as error:
                return str(error)
            return one.state

        pack, ended = Pack(2), {}
        for one in (broken, beside):
            pack.begin(one, guarded(one))
        while pack.waiting:
            ended.update(pack.advance())
        assert ended == {broken: "the toy\nis broken", beside: "done"}
        assert math.isfinite(beside.result()["val_loss"])
