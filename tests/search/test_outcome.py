import pytest
from optuna.trial import TrialState

from hybrid_sweep.search.outcome import RunOutcome, finite, judge
from hybrid_sweep.spec.sweep import Constraints

LIMITS = Constraints(min_quality=0.9, max_divergence_rate=0.1, max_memory_ratio=1.5)


def ended(state="done", reason="", **result):
    return RunOutcome.from_result(
        state, reason, {"speedup_counted": 1.5, "quality": 0.95, "warning_rate": 0.0, **result}
    )


def test_a_point_is_worth_the_means_of_its_runs():
    told = judge([ended(), ended(speedup_counted=2.5, quality=0.97)], Constraints())
    assert told.state is TrialState.COMPLETE
    assert told.values == pytest.approx((2.0, 0.96))
    assert told.constraints == {"diverged": 0}
    assert told.counts


def test_every_limit_has_its_constraint_and_is_violated_above_zero():
    told = judge([ended(warning_rate=0.3, peak_memory_ratio=1.2), ended(peak_memory_ratio=2.2)], LIMITS)
    assert told.constraints == pytest.approx(
        {"diverged": 0, "min_quality": -0.05, "max_divergence_rate": 0.05, "max_memory_ratio": 0.2}
    )
    assert judge([ended()], LIMITS).constraints["max_memory_ratio"] == 0  # not measured
    assert judge([ended(warning_rate=None)], LIMITS).constraints["max_divergence_rate"] == pytest.approx(0.9)


def test_a_diverged_run_is_worth_nothing_and_violates():
    told = judge([ended(), ended("diverged", quality=0.99, warning_rate=None)], LIMITS)
    assert told.state is TrialState.COMPLETE
    assert told.values == pytest.approx((1.5, 0.475))
    assert told.constraints["diverged"] == 0.5
    assert told.constraints["max_divergence_rate"] == pytest.approx(0.4)
    assert not told.counts


@pytest.mark.parametrize("nothing", [None, float("nan"), float("inf"), "inf", "-inf", "text"])
@pytest.mark.parametrize("column", ["speedup_counted", "quality"])
@pytest.mark.parametrize("state", ["done", "diverged"])
def test_an_objective_that_is_no_number_fails_the_point(nothing, column, state):
    told = judge([ended(), ended(state, **{column: nothing})], LIMITS)
    if state == "diverged" and column == "quality":  # 0 whatever it says
        assert told.state is TrialState.COMPLETE
        return
    assert told.state is TrialState.FAIL
    assert told.values is None
    assert told.constraints == {}
    assert column in told.reason


def test_a_failed_run_fails_the_point_and_a_stopped_one_prunes_it():
    failed, stopped = ended("failed", "lost: node gone"), ended("pruned", "early")
    assert judge([ended(), failed], LIMITS).reason == "lost: node gone"
    assert judge([stopped, failed], LIMITS).state is TrialState.FAIL
    told = judge([ended(), stopped], LIMITS)
    assert (told.state, told.values, told.reason) == (TrialState.PRUNED, None, "early")


@pytest.mark.parametrize(
    ("value", "expected"), [(1, 1.0), (0.5, 0.5), (None, None), ("inf", None), ([], None)]
)
def test_what_counts_as_a_number(value, expected):
    assert finite(value) == expected
