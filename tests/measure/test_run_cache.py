"""What runs have measured is found again: no control and no twin is trained twice."""

from math import inf

import pytest
from support.toy import Toy

from hybrid_sweep.control import ControlConfig
from hybrid_sweep.measure.cache import Cache
from hybrid_sweep.measure.control_run import ControlRun
from hybrid_sweep.measure.costs import COST_NAMES, UnitCosts
from hybrid_sweep.measure.curve import Curve
from hybrid_sweep.measure.fingerprint import Fingerprint
from hybrid_sweep.measure.hybrid_run import HybridRun
from hybrid_sweep.measure.reference import reference_run
from hybrid_sweep.measure.run_cache import KeptTwins, RunCache
from hybrid_sweep.trainer import HybridConfig
from hybrid_sweep.trainer.state import Segment

COSTS = UnitCosts(**dict.fromkeys(COST_NAMES, 0.1) | {"plain_step": 1.0})
JUMPING = HybridConfig(
    warmup_steps=20, full_steps=10, horizon_rule="fixed", max_predict_steps=20, confidence_threshold=0.001
)
RATE = ControlConfig(name="lr", multiplier=3.0)
TRACE = (Segment("full", 10, 0), Segment("predict", 20, 1, 15))
CLOCKED = ("speedup", "seconds", "train_seconds", "loading_share")


class Watched(Toy):
    """Counts what is loaded by any caller."""

    loaded = 0

    def batch(self, seed, step):
        type(self).loaded += 1
        return super().batch(seed, step)


@pytest.fixture
def runs(tmp_path):
    """Returns what is kept of runs, as a new process finds it."""
    return lambda **keywords: RunCache(Fingerprint(Toy(), keywords), Cache(tmp_path))


@pytest.fixture(scope="module")
def reference():
    return reference_run(Toy(), 0, 120, 10)


@pytest.fixture(autouse=True)
def nothing_loaded():
    Watched.loaded = 0


def run(trial):
    reports = []
    while not trial.done:
        reports.append(trial.report())
    return trial, reports


def unclocked(values):
    return {name: value for name, value in values.items() if name not in CLOCKED}


class TestControls:
    def trial(self, reference, runs, arm=RATE):
        return run(ControlRun(Watched(), arm, 40, reference, runs=runs))

    def test_one_that_was_run_has_the_same_reports_and_result_and_trains_nothing(self, reference, runs):
        first, reports = self.trial(reference, runs())
        loaded = Watched.loaded
        again, reports_again = self.trial(reference, runs())
        assert (loaded, Watched.loaded) == (40, 40)
        assert (first.from_cache, again.from_cache) == (False, True)
        assert reports_again == reports  # the seconds that it took included
        assert (again.state, again.reason, again.result()) == (first.state, first.reason, first.result())

    def test_it_is_the_same_as_without_a_cache(self, reference, runs):
        alone, reports_alone = self.trial(reference, None)
        for _ in range(2):
            trial, reports = self.trial(reference, runs())
            assert unclocked(trial.result()) == unclocked(alone.result())
            assert [unclocked(report) for report in reports] == [
                unclocked(report) for report in reports_alone
            ]

    def test_a_divergence_is_one_again(self, reference, runs):
        arm = ControlConfig(name="lr", multiplier=1e9)
        first, reports = self.trial(reference, runs(), arm)
        again, reports_again = self.trial(reference, runs(), arm)
        assert again.from_cache
        assert (again.state, again.reason) == ("diverged", first.reason)
        assert str(reports_again) == str(reports)  # an accuracy is not a number
        assert reports_again[-1]["val_loss"] == inf

    @pytest.mark.parametrize("what", ["arm", "seed", "steps", "eval_every", "keywords"])
    def test_another_one_is_run(self, reference, runs, what):
        self.trial(reference, runs())
        Watched.loaded = 0
        arm = ControlConfig(name="lr", multiplier=2.0) if what == "arm" else RATE
        seed, every = int(what == "seed"), 20 if what == "eval_every" else 10
        other = reference_run(Toy(), seed, 120, every)
        kept = runs(lr=0.1) if what == "keywords" else runs()
        trial, _ = run(ControlRun(Watched(), arm, 30 if what == "steps" else 40, other, runs=kept))
        assert not trial.from_cache and Watched.loaded

    def test_one_that_was_cut_short_is_not_kept(self, reference, runs):
        ControlRun(Watched(), RATE, 40, reference, runs=runs()).report()
        assert not self.trial(reference, runs())[0].from_cache

    def test_one_that_is_read_from_the_reference_is_not_from_the_cache(self, reference, runs):
        for _ in range(2):
            trial, _ = self.trial(reference, runs(), ControlConfig(name="truncated"))
            assert not trial.from_cache


class TestTwins:
    def test_they_are_trained_once(self, reference, runs):
        alone, _ = run(HybridRun(Watched(), JUMPING, reference, COSTS, {}))
        expected, results = alone.result(), []
        for _ in range(2):
            trial, _ = run(HybridRun(Watched(), JUMPING, reference, COSTS, KeptTwins(runs())))
            Watched.loaded = 0
            results.append((trial.result(), Watched.loaded))
        for name in ("quality_vs_frozen", "quality_vs_lr_matched"):
            assert [result[name] for result, _ in results] == [expected[name]] * 2
        assert [loaded > 0 for _, loaded in results] == [True, False]

    def test_a_curve_is_kept_to_the_last_bit(self, runs):
        curve = Curve(
            steps=[0, 3],
            backward_calls=[0, 3],
            seconds=[0.0, 0.1 + 0.2],
            val_loss=[1 / 3, inf],
            test={"loss": 1.0},
        )
        KeptTwins(runs())[0, TRACE, RATE] = curve
        assert KeptTwins(runs())[0, TRACE, RATE] == curve

    @pytest.mark.parametrize(
        "key", [(1, TRACE, RATE), (0, TRACE[:1], RATE), (0, TRACE, ControlConfig(name="lr", multiplier=3.1))]
    )
    def test_another_seed_trace_or_arm_is_another_twin(self, runs, key):
        twins = KeptTwins(runs())
        twins[0, TRACE, RATE] = Curve(steps=[], backward_calls=[], seconds=[], val_loss=[])
        with pytest.raises(KeyError):
            twins[key]
