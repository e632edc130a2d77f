"""A saved run goes on under another configuration: what is kept, what starts afresh, and what is refused."""

import pytest
import torch
from support.problem import Problem

from hybrid_sweep.errors import UserError
from hybrid_sweep.measure.checkpoint import from_bytes, to_bytes
from hybrid_sweep.trainer import HybridConfig, HybridTrainer, Phase
from hybrid_sweep.trainer.continuing import changes, controller_under, starts_afresh

BASE = HybridConfig(
    warmup_steps=20,
    full_steps=10,
    max_predict_steps=8,
    horizon_rule="fixed",
    confidence_threshold=0.001,
    minimum_cosine=-1,
)
OTHERS = {
    "warmup_steps": 40,
    "full_steps": 15,
    "max_predict_steps": 4,
    "correction_interval": 3,
    "correction_schedule": "adaptive",
    "confidence_threshold": 0.999,
    "divergence_threshold": 4.0,
    "correct_steps": 0,
    "stop_fraction": 0.3,
    "tail": "average",
    "cycle_mode": "chained",
    "horizon_rule": "original",
    "predictor": "outer_momentum",
    "velocity_decay": 0.9,
    "gates": "original",
    "minimum_cosine": 0.0,
    "guard_tolerance": 1.5,
    "divergence_rule": "original",
    "force_full_steps": 20,
    "max_rollbacks": 0,
    "checkpoint_interval": 10,
    "confidence_rule": "original",
    "calibration": "isotonic",
    "predictor_hidden_size": 8,
    "predictor_members": 2,
    "bptt_steps": 1,
    "predictor_seed": 1,
}
AFRESH = {
    "predictor": "predictor",
    "gates": "dynamics",
    "predictor_hidden_size": "dynamics",
    "predictor_members": "dynamics",
    "predictor_seed": "dynamics",
    "divergence_rule": "monitor",
}


def run_of(config, momentum=0.9):
    problem = Problem(momentum=momentum)
    schedule = torch.optim.lr_scheduler.ExponentialLR(problem.optimizer, 0.999)
    return problem, HybridTrainer(
        problem.model, problem.optimizer, config, loss_fn=problem.loss, lr_scheduler=schedule
    )


def saved(config=BASE, steps=103):
    """The state of a run at the end of a cycle near `steps`."""
    problem, trainer = run_of(config)
    while trainer.tally.steps < steps - 20:
        trainer.run_cycle(problem.batch, 10_000)
    return from_bytes(to_bytes(trainer.state_dict())), trainer, problem


def weights(problem):
    return [p.detach().clone() for p in problem.model.parameters()]


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("name", sorted(set(HybridConfig.model_fields) - {"gradient_checkpointing"}))
def test_weights_optimizer_schedule_and_step_go_on_under_each_new_setting(name, caplog):
    state, donor, theirs = saved()
    config = BASE.replace(**{name: OTHERS[name]})
    problem, trainer = run_of(config)
    with pytest.raises(UserError, match=f"the saved run has {name}=.*under_new_config=True"):
        trainer.load_state_dict(state)
    trainer.load_state_dict(state, under_new_config=True)
    assert trainer.config == config
    assert same(weights(problem), weights(theirs))
    for own, other in zip(problem.optimizer.state.values(), theirs.optimizer.state.values(), strict=True):
        assert torch.equal(own["momentum_buffer"], other["momentum_buffer"])
    assert trainer.plain.learning_rate == donor.plain.learning_rate
    assert trainer.tally.steps == donor.tally.steps > 80
    assert trainer.trace() == donor.trace()
    assert ("afresh" in caplog.text) == (name in AFRESH)
    assert f"the {AFRESH.get(name, '')}" in caplog.text or name not in AFRESH
    assert trainer.run(problem.batch, donor.tally.steps + 30).steps == donor.tally.steps + 30
    assert problem.loss(problem.model, problem.batch(500)) < 1.0
    trainer.rollback_to_checkpoint()


def test_each_setting_has_another_value_here():
    assert set(changes(BASE.model_dump(), BASE.replace(**OTHERS))) == set(OTHERS)
    assert set(OTHERS) == set(HybridConfig.model_fields) - {"gradient_checkpointing"}


def test_the_new_settings_hold_from_the_next_decision_on():
    state, donor, _ = saved()
    before = len(donor.trace())
    lengths = {}
    for config in (
        BASE.replace(max_predict_steps=3),
        BASE.replace(full_steps=15),
        BASE.replace(correct_steps=2),
    ):
        problem, trainer = run_of(config)
        trainer.load_state_dict(state, under_new_config=True)
        trainer.run(problem.batch, 240)
        after = trainer.trace()[before + 1 : -2]
        for phase in ("predict", "full", "correct"):
            lengths.setdefault(phase, []).append({s.length for s in after if s.phase == phase})
    assert lengths["predict"] == [{3}, {8}, {8}]
    assert lengths["full"][1] == {15}
    assert lengths["correct"] == [{5}, {5}, {2}]


def test_with_the_same_configuration_nothing_is_changed():
    states = [saved()[0] for _ in range(2)]
    found = []
    for state, allowed in zip(states, (False, True), strict=True):
        problem, trainer = run_of(BASE)
        trainer.load_state_dict(state, under_new_config=allowed)
        trainer.run(problem.batch, 200)
        found.append((weights(problem), trainer.trace()))
    assert same(found[0][0], found[1][0])
    assert found[0][1] == found[1][1]


def test_no_rollback_goes_back_behind_where_it_went_on():
    state, _, theirs = saved()
    problem, trainer = run_of(BASE.replace(predictor="dmd"))
    trainer.load_state_dict(state, under_new_config=True)
    trainer.step(problem.batch(trainer.tally.steps + 1))
    trainer.rollback_to_checkpoint()
    assert same(weights(problem), weights(theirs))


def test_what_is_within_a_jump_goes_on_under_its_own_configuration_alone():
    problem, trainer = run_of(BASE)
    while trainer.controller.phase is not Phase.PREDICT:
        trainer.step(problem.batch(trainer.tally.steps + 1))
    state = from_bytes(to_bytes(trainer.state_dict()))
    _, other = run_of(BASE.replace(max_predict_steps=4))
    with pytest.raises(UserError, match="1 steps into a jump"):
        other.load_state_dict(state, under_new_config=True)
    run_of(BASE)[1].load_state_dict(state, under_new_config=True)


def test_phases_that_had_grown_stay_as_much_longer_and_a_warmup_ends_when_the_new_one_does():
    now = BASE.replace(full_steps=20, warmup_steps=30)
    state = {"phase": "full", "full_steps": 16, "remaining": 4, "steps_in_current_phase": 6}
    assert controller_under(state, BASE.model_dump(), now) == {**state, "full_steps": 32}
    warm = {"phase": "warmup", "full_steps": 10, "remaining": 12, "steps_in_current_phase": 8}
    assert controller_under(warm, BASE.model_dump(), now)["remaining"] == 22
    over = {**warm, "steps_in_current_phase": 18, "remaining": 2}
    assert controller_under(over, BASE.model_dump(), BASE.replace(warmup_steps=10))["remaining"] == 0


def test_averages_over_windows_of_another_length_start_afresh():
    config = BASE.replace(predictor="rre", full_steps=20)
    changed = changes(BASE.replace(predictor="rre").model_dump(), config)
    assert starts_afresh(changed, config) == {"predictor": ["full_steps"]}
    state, _, _ = saved(BASE.replace(predictor="rre"))
    problem, trainer = run_of(config)
    trainer.load_state_dict(state, under_new_config=True)
    assert not trainer.planner.predictor.ready
    trainer.run(problem.batch, 200)


def test_a_run_that_had_unfrozen_a_layer_goes_on_in_a_trainer_where_it_is_frozen():
    found = []
    for interrupted in (False, True):
        problem, trainer = frozen()
        trainer.run_cycle(problem.batch, 200)
        problem.model[0].requires_grad_(True)
        trainer.run_cycle(problem.batch, 200)
        trainer.run_cycle(problem.batch, 200)
        if interrupted:
            state = from_bytes(to_bytes(trainer.state_dict()))
            problem, trainer = frozen()
            trainer.load_state_dict(state)
        trainer.run(problem.batch, 200)
        assert problem.model[0].weight.requires_grad
        found.append((weights(problem), trainer.trace()))
    assert same(found[0][0], found[1][0])
    assert found[0][1] == found[1][1]


def frozen():
    problem = Problem()
    problem.model[0].requires_grad_(False)
    return problem, HybridTrainer(problem.model, problem.optimizer, BASE, loss_fn=problem.loss)


@pytest.mark.parametrize(("name", "kept"), [("predictor_hidden_size", False), ("velocity_decay", True)])
def test_a_network_that_starts_afresh_has_foretold_nothing(name, kept):
    state, _, _ = saved()
    assert state["parts"]["ours"]["planner"]["rolled"]  # the cycle's Correct phase has asked for it
    _, trainer = run_of(BASE.replace(**{name: OTHERS[name]}))
    trainer.load_state_dict(state, under_new_config=True)
    assert bool(trainer.planner._rolled) is kept
    assert kept or trainer.planner._loss_correction is None
