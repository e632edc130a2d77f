"""The phase controller: golden horizons, every transition, and properties of whole runs."""

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybrid_sweep.trainer.config import HybridConfig
from hybrid_sweep.trainer.phases import Phase, PhaseController, compute_predict_steps

CONFIDENCES = (0.30, 0.40, 0.50, 0.60, 0.70, 0.75, 0.80, 0.85, 0.90, 0.95, 1.00)
GOLDEN = {  # (H, n): horizons by confidence; as the original library gives them
    (5, 0): (5,) * 11,
    (5, 7): (5,) * 11,
    (25, 0): (10, 10, 10, 10, 12, 14, 16, 18, 20, 22, 25),
    (50, 0): (10, 10, 12, 18, 24, 28, 32, 36, 40, 45, 50),
    (50, 1): (10, 10, 10, 16, 21, 25, 28, 32, 36, 40, 45),
    (75, 0): (10, 12, 18, 27, 36, 42, 48, 54, 60, 67, 75),
    (75, 1): (10, 10, 16, 24, 32, 37, 43, 48, 54, 60, 67),
    (75, 2): (10, 10, 14, 21, 28, 33, 38, 43, 48, 53, 60),
    (75, 5): (10, 10, 10, 13, 18, 21, 24, 27, 30, 33, 37),
    (75, 9): (10, 10, 10, 13, 18, 21, 24, 27, 30, 33, 37),
    (80, 0): (10, 12, 20, 28, 39, 45, 51, 57, 64, 72, 80),
    (80, 1): (10, 10, 18, 25, 35, 40, 45, 51, 57, 64, 72),
    (100, 0): (10, 16, 25, 36, 48, 56, 64, 72, 80, 90, 100),
    (100, 1): (10, 14, 22, 32, 43, 50, 57, 64, 72, 81, 90),
    (150, 0): (13, 24, 37, 54, 73, 84, 96, 108, 121, 135, 150),
    (150, 1): (11, 21, 33, 48, 65, 75, 86, 97, 108, 121, 135),
    (150, 5): (10, 12, 18, 27, 36, 42, 48, 54, 60, 67, 75),
}


@pytest.mark.parametrize(("key", "values"), GOLDEN.items())
def test_adaptive_horizon_has_the_golden_values(key, values):
    horizon, consecutive = key
    assert tuple(compute_predict_steps(horizon, c, consecutive) for c in CONFIDENCES) == values


@given(st.integers(1, 500), st.floats(0, 1), st.integers(0, 20))
def test_horizon_stays_between_its_floor_and_h(h, c, n):
    assert min(10, h) <= compute_predict_steps(h, c, n) <= h


def run(controller, steps, confidence=1.0, trusted=True):
    phases = []
    for step in range(steps):
        if controller.remaining == 0:
            controller.enter(controller.decide(step, confidence, trusted=trusted))
        phases.append(controller.phase)
        controller.advance()
    return phases


def test_a_run_is_warmup_then_full_predict_correct_cycles():
    controller = PhaseController(HybridConfig(warmup_steps=50, max_predict_steps=30), 600)
    letters = "".join(p.value[0] for p in run(controller, 600))
    assert re.fullmatch(r"w{50}(f{20}(p+c{5})?)+f*", letters), letters
    assert "p" not in letters[570:]  # the last 5 % are never predicted


def test_default_steady_state_cycle_is_20_51_5_at_the_default_threshold():
    # seed, quick start: "70-75 %" backward reduction = 20 / (20 + 51 + 5) at c = 0.85 with H = 80 … n = 0
    letters = "".join(p.value[0] for p in run(PhaseController(HybridConfig(max_predict_steps=71)), 400, 0.85))
    assert letters[100:176] == "f" * 20 + "p" * 51 + "c" * 5


def test_shut_gate_never_predicts():
    assert set(run(PhaseController(HybridConfig(confidence_threshold=0.999)), 500, 0.99)) == {
        Phase.WARMUP,
        Phase.FULL,
    }


def test_veto_keeps_full():
    assert Phase.PREDICT not in run(PhaseController(HybridConfig()), 500, 1.0, trusted=False)


def test_no_correct_steps_goes_straight_back_to_full():
    phases = run(PhaseController(HybridConfig(correct_steps=0)), 500)
    assert Phase.CORRECT not in phases
    assert Phase.PREDICT in phases


TRANSITIONS = {
    # (cycle mode, from): the phases that may follow
    ("seed", Phase.WARMUP): {Phase.FULL},
    ("seed", Phase.FULL): {Phase.FULL, Phase.PREDICT},
    ("seed", Phase.PREDICT): {Phase.CORRECT},
    ("seed", Phase.CORRECT): {Phase.FULL},
    ("chained", Phase.WARMUP): {Phase.FULL},
    ("chained", Phase.FULL): {Phase.FULL, Phase.PREDICT},
    ("chained", Phase.PREDICT): {Phase.CORRECT},
    ("chained", Phase.CORRECT): {Phase.FULL, Phase.PREDICT},
}


@pytest.mark.parametrize(("mode", "phase"), TRANSITIONS)
def test_transitions(mode, phase):
    seen = set()
    for confidence, trusted in itertools.product((0.1, 1.0), (True, False)):
        controller = PhaseController(HybridConfig(cycle_mode=mode))
        controller.phase, controller.remaining = phase, 0
        seen.add(controller.decide(200, confidence, trusted=trusted).phase)
    assert seen == TRANSITIONS[mode, phase]


def test_rust_mode_predicts_at_most_five_times_in_a_row_with_shrinking_horizons():
    controller = PhaseController(HybridConfig(cycle_mode="chained", max_predict_steps=75))
    letters = "".join(p.value[0] for p in run(controller, 800))
    between = re.split(r"f+", letters[100:])[1]
    assert [len(run) for run in re.findall(r"p+", between)] == [75, 67, 60, 52, 45]


def test_full_phase_resets_the_count_of_predict_phases():
    controller = PhaseController(HybridConfig(max_predict_steps=75))
    letters = "".join(p.value[0] for p in run(controller, 900))
    assert {len(p) for p in re.findall(r"p+(?=c)", letters)} == {75}


def test_peeking_changes_nothing():
    controller = PhaseController(HybridConfig())
    controller.remaining = 0
    before = controller.state_dict()
    assert controller.decide(100, 0.9) == controller.decide(100, 0.9)
    assert controller.state_dict() == before


def test_force_phase_ignores_confidence_then_control_resumes():
    controller = PhaseController(HybridConfig(warmup_steps=1))
    run(controller, 1)
    controller.force_phase(Phase.FULL, 50)
    phases = run(controller, 60)
    assert phases[:50] == [Phase.FULL] * 50
    assert phases[50] is Phase.PREDICT


def test_steps_in_current_phase_tracking():
    controller = PhaseController(HybridConfig(warmup_steps=3))
    run(controller, 3)
    assert controller.steps_in_current_phase == 3
    run(controller, 1)
    assert controller.steps_in_current_phase == 1


def test_alarms_halve_the_horizon_and_lengthen_full_within_bounds():
    controller = PhaseController(HybridConfig(max_predict_steps=80))
    controller.reduce_horizon()
    assert controller.horizon(0, 1.0) == 40
    for _ in range(20):
        controller.restore_horizon()
        controller.grow_full_steps()
    assert controller.horizon(0, 1.0) == 80
    assert 20 < controller.full_steps <= 80


def test_a_reduced_horizon_still_predicts():
    controller = PhaseController(HybridConfig(warmup_steps=10), total_steps=1000)
    for _ in range(10):
        controller.reduce_horizon()
    assert Phase.PREDICT in run(controller, 200)


def test_a_horizon_is_clipped_to_the_run():
    controller = PhaseController(HybridConfig(max_predict_steps=80, stop_fraction=0.0), total_steps=300)
    assert controller.horizon(250, 1.0) == 50
    assert controller.horizon(300, 1.0) == 0


@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(1, 120),
    st.integers(0, 8),
    st.sampled_from(["original", "chained"]),
    st.lists(st.floats(0, 1), min_size=1, max_size=30),
)
def test_any_run_keeps_the_state_machine(warmup, full, horizon, correct, mode, confidences):
    config = HybridConfig(
        warmup_steps=warmup,
        full_steps=full,
        max_predict_steps=horizon,
        correct_steps=correct,
        cycle_mode=mode,
        confidence_threshold=0.5,
    )
    controller = PhaseController(config, 400)
    letters = ""
    for step in range(400):
        if controller.remaining == 0:
            controller.enter(controller.decide(step, confidences[step % len(confidences)]))
        letters += controller.phase.value[0]
        controller.advance()
        if step == 200:  # a state that was saved and loaded goes on as if nothing had happened
            copy = PhaseController(config, 400)
            copy.load_state_dict(controller.state_dict())
            controller = copy
    assert re.fullmatch(r"w+(f+((p+c*)+)?)*", letters), letters
