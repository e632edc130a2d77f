"""Confidence: its two rules, its range, and its record."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybrid_sweep.trainer.forecast.calibration import Calibration
from hybrid_sweep.trainer.forecast.confidence import CEILING, Confidence, stability, three_term
from hybrid_sweep.trainer.forecast.dynamics import RssmLite
from hybrid_sweep.trainer.forecast.features import RealStep, StepHistory

NUMBERS = st.floats(0, 1e6)


def steps(losses: list[float], norms: list[float] | None = None) -> list[RealStep]:
    norms = norms or [1.0] * len(losses)
    pairs = zip(losses, norms, strict=True)
    return [RealStep(i, loss, norm, loss, loss) for i, (loss, norm) in enumerate(pairs, 1)]


def after_training(noise: float) -> float:
    """Confidence after 15 cycles of a slowly falling loss whose batches scatter by `noise`."""
    rng, history, model, confidence = random.Random(1), StepHistory(), RssmLite(), Confidence()
    step = 0
    for cycle in range(15):
        new = 20 if cycle else 100
        for _ in range(new):
            step += 1
            loss = math.exp(-step / 3000) * max(1 + noise * rng.gauss(0, 1), 0.05)
            history.append(step, loss, 1.0, 0.01)
        step += 40
        errors = model.train(history, new)
        confidence.update(errors, model.spread, history.newest(20))
    return confidence.value


def test_three_terms() -> None:
    assert three_term(0, [0.0] * 10, 1, 1) == pytest.approx(1.0)
    assert three_term(0, [0.0] * 9, 1, 1) == pytest.approx(0.88)
    assert three_term(1, [1.0] * 10, 1, 1) == pytest.approx(0.6)
    assert three_term(0, [0.0] * 10, 1.5, 1) == pytest.approx(0.9)
    assert three_term(0, [0.0] * 10, 1.25, 1) == pytest.approx(0.8 + 0.2 / 1.5)


def test_a_quiet_run_comes_near_one_and_noise_lowers_it() -> None:
    values = [after_training(noise) for noise in (0.02, 0.1, 0.4)]
    assert values[0] >= 0.95
    assert values[0] > values[1] > values[2]


def test_history_forgets_all_but_the_newest_fifty_errors() -> None:
    confidence = Confidence()
    confidence.update([5.0] * 50, 0.0, steps([1.0]))
    poor = confidence.value
    confidence.update([0.0] * 50, 0.0, steps([1.0]))
    assert confidence.value == CEILING > poor


def test_the_seeds_rule() -> None:
    confidence = Confidence("original")
    assert confidence.update([], 0.0, steps([1.0] * 20)) == CEILING
    rng = random.Random(0)
    noisy = confidence.update([], 0.0, steps([max(rng.gauss(1, 0.5), 0.01) for _ in range(20)]))
    assert noisy < 0.85


def test_loss_weighs_more_than_gradient_in_the_seeds_rule() -> None:
    scattered = [1.0, 2.0] * 10
    loss = Confidence("original").update([], 0.0, steps(scattered))
    gradient = Confidence("original").update([], 0.0, steps([1.0] * 20, scattered))
    assert loss < gradient


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=30))
def test_stability_is_a_share(values: list[float]) -> None:
    assert 0 <= stability(values) <= 1


@given(
    st.sampled_from(["three_term", "seed"]),
    st.lists(NUMBERS, max_size=60),
    NUMBERS | st.just(math.inf) | st.just(math.nan),
    st.lists(st.floats(-1e6, 1e6), max_size=25),
)
def test_confidence_is_always_below_a_threshold_that_shuts_the_gate(
    rule: str, errors: list[float], spread: float, losses: list[float]
) -> None:
    confidence = Confidence("original" if rule == "original" else "three_term")
    value = confidence.update(errors, spread, steps(losses))
    assert 0 <= value <= CEILING < 0.999
    assert value == confidence.value


def test_accuracy_counts_predictions_within_a_tenth_of_the_loss() -> None:
    confidence = Confidence()
    assert confidence.prediction_accuracy is None
    assert confidence.score(1.09, 1.0)
    assert not confidence.score(1.11, 1.0)
    assert not confidence.score(math.nan, 1.0)
    assert confidence.prediction_accuracy == pytest.approx(1 / 3)


@given(st.floats(1e-6, 1e6), st.floats(0.5, 2.0), st.floats(0, 0.5))
def test_what_counts_as_accurate_does_not_depend_on_the_unit_of_the_loss(
    unit: float, predicted: float, noise: float
) -> None:
    one, other = Confidence(), Confidence()
    if abs(abs(predicted - 1) - 0.1) < 1e-6 or abs(abs(predicted - 1) - 0.1 - 2 * noise) < 1e-6:
        return
    assert one.score(predicted, 1.0, noise) == other.score(unit * predicted, unit, unit * noise)
    assert one.scores == other.scores


def test_skill_is_above_zero_where_confidence_knows_more_than_the_share_so_far() -> None:
    def after(knows: bool) -> Confidence:
        confidence, rng = Confidence("three_term", "binned"), random.Random(3)
        for jump in range(60):
            confidence.update([0.05] * 20, 0.1, steps([1.0]))
            good = rng.random() < 0.7
            for _ in range(5):
                right = good if knows else rng.random() < 0.7
                confidence.score(1.0 if right else 2.0, 1.0)
            assert len(confidence.scores) == 5 * (jump + 1)
        confidence.update([], 0.1, steps([1.0]))
        return confidence

    knowing, blind = after(True).skill.interval(), after(False).skill.interval()
    assert 0.3 < knowing.low < knowing.value < knowing.high
    assert blind.low < 0.02, "outcomes that nothing foretells leave nothing to be skilled at"


def test_skill_is_the_brier_score_against_the_share_confirmed_so_far() -> None:
    confidence = Confidence()
    confidence.update([0.1] * 20, 0.1, steps([1.0]))
    outcomes = [True, False, True, True]
    for right in outcomes:
        confidence.score(1.0 if right else 2.0, 1.0)
    shares = [(sum(outcomes[:n]) + 1) / (n + 2) for n in range(4)]
    simple = sum((share - right) ** 2 for share, right in zip(shares, outcomes, strict=True))
    own = sum((at - right) ** 2 for at, right in confidence.scores)
    assert confidence.skill.interval().value == pytest.approx(1 - own / simple)
    assert confidence.brier == pytest.approx(own / 4)


def test_a_loss_within_two_deviations_of_its_batch_confirms_a_prediction() -> None:
    confidence = Confidence()
    assert not confidence.score(1.29, 1.0, noise=0.1), "it is not within a tenth"
    confidence.score(1.31, 1.0, noise=0.1)
    assert [confirmed for _, confirmed in confidence.scores] == [True, False]
    assert confidence.prediction_accuracy == 0


def test_within_a_jump_each_outcome_moves_the_next_confidence() -> None:
    confidence = Confidence()
    start = confidence.update([0.1] * 20, 0.1, steps([1.0]))
    for _ in range(4):
        confidence.score(2.0, 1.0)
    issued = [at for at, _ in confidence.scores]
    assert issued == pytest.approx([start * 0.7**i for i in range(4)])
    assert confidence.update([], 0.1, steps([1.0])) == start, "a new decision starts from the beginning"


def overconfident(calibration: Calibration) -> Confidence:
    """A predictor that is sure and right half of the time."""
    confidence, rng = Confidence("three_term", calibration), random.Random(0)
    for _ in range(40):
        confidence.update([0.0] * 50, 0.0, steps([1.0]))
        for _ in range(5):
            confidence.score(1.0 if rng.random() < 0.5 else 2.0, 1.0)
    return confidence


@pytest.mark.parametrize("calibration", ["binned", "isotonic"])
def test_the_confidence_that_gates_is_the_calibrated_one(calibration: Calibration) -> None:
    raw, calibrated = overconfident("none"), overconfident(calibration)
    assert raw.value == CEILING
    assert calibrated.value == pytest.approx(0.5, abs=0.15)
    assert calibrated.brier is not None and raw.brier is not None
    assert calibrated.brier < raw.brier


@pytest.mark.parametrize("calibration", ["binned", "isotonic"])
def test_a_gate_shut_by_bad_outcomes_opens_again(calibration: Calibration) -> None:
    confidence = overconfident(calibration)
    values = [confidence.update([0.0] * 50, 0.0, steps([1.0])) for _ in range(80)]
    assert values[0] < 0.7 < 0.85 < values[-1]


def test_a_well_behaved_run_reaches_every_threshold_calibrated() -> None:
    confidence = Confidence("three_term", "binned")
    for _ in range(20):
        confidence.update([0.01] * 20, 0.01, steps([1.0]))
        for _ in range(10):
            confidence.score(1.0, 1.0)
    assert confidence.value == CEILING
    assert confidence.calibration_error() is not None


@given(st.lists(st.booleans(), max_size=60))
def test_calibration_error_and_brier_are_shares(outcomes: list[bool]) -> None:
    confidence = Confidence()
    for accurate in outcomes:
        confidence.score(1.0 if accurate else 2.0, 1.0)
    error, brier = confidence.calibration_error(minimum=1), confidence.brier
    assert (error is None) == (brier is None) == (not outcomes)
    assert error is None or (0 <= error <= 1 and brier is not None and 0 <= brier <= 1)
    assert sum(each.predictions for each in confidence.reliability) == len(outcomes)
    assert confidence.calibration_error(minimum=61) is None


def test_state_round_trip() -> None:
    confidence, restored = Confidence(), Confidence()
    confidence.update([0.1] * 20, 0.1, steps([1.0]))
    confidence.score(1.0, 1.0)
    state = confidence.state_dict()
    restored.load_state_dict(state)
    for each in (confidence, restored):
        each.update([0.3] * 20, 0.2, steps([1.0, 1.1]))
        each.score(1.0, 1.5)
    assert restored.state_dict() == confidence.state_dict() != state
