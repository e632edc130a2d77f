"""The original's "How to Monitor Divergence Signals", in Python, on runs that go well and others."""

import pytest
from support.problem import Problem

from hybrid_sweep.trainer import DivergenceLevel, DivergenceMonitor, HybridConfig, HybridTrainer, Phase

CONFIG = HybridConfig(
    warmup_steps=60, full_steps=20, max_predict_steps=30, correction_interval=10, confidence_threshold=0.01
)


def example(trainer, config, batches, say, spoil=lambda step, loss: loss):
    """Return the logical steps taken, the signal of each, and the lines of the log."""
    log = ["step,loss,predicted_loss,deviation,gradient_norm,confidence,level"]
    signals = []
    monitor = DivergenceMonitor(config)

    for step, batch in enumerate(batches):
        metrics = trainer.step(batch)

        # Check for divergence
        signal = monitor.check_divergence(trainer.state(), spoil(step, metrics.loss))
        signals.append(signal)

        match signal.level:
            case DivergenceLevel.Normal:
                pass  # Continue

            case DivergenceLevel.Caution:
                say(f"Caution: {signal.description}")
                # Monitor closely, no action yet

            case DivergenceLevel.Warning:
                say(f"Warning: {signal.description}")
                # Force full training for a while
                trainer.force_phase(Phase.Full, 50)

            case DivergenceLevel.Critical:
                say(f"Critical: {signal.description}")
                # Rollback to last checkpoint
                trainer.rollback_to_checkpoint()
                break

        log.append(
            f"{step},{metrics.loss:.4f},{signal.predicted_loss or 0.0:.4f},{signal.deviation_sigmas:.4f},"
            f"{metrics.gradient_norm or 0.0:.4f},{signal.confidence:.4f},{int(signal.level)}"
        )
    return signals, log


def run(steps, spoil=lambda step, loss: loss, rule="calibrated"):
    problem, said = Problem(), []
    config = CONFIG.replace(divergence_rule=rule)
    trainer = HybridTrainer(problem.model, problem.optimizer, config, loss_fn=problem.loss)
    batches = (problem.batch(step) for step in range(1, steps + 1))
    return trainer, said, *example(trainer, config, batches, said.append, spoil)


def test_it_is_silent_where_all_is_well_and_logs_every_step():
    trainer, said, signals, log = run(300)
    assert said == []
    assert len(signals) == len(log) - 1 == 300
    phases = {segment.phase for segment in trainer.trace()}
    assert phases == {"warmup", "full", "predict", "correct"}
    assert any(signal.predicted_loss for signal in signals)


@pytest.mark.parametrize("at", [15, 55, 70, 85, 91, 97, 99, 150])
def test_a_loss_a_million_times_too_high_is_told_whatever_the_phase(at):
    _, said, signals, _ = run(at + 1, lambda step, loss: loss * (1e6 if step == at else 1))
    assert [signal.level for signal in signals[:at]] == [0] * at
    assert signals[at].level >= DivergenceLevel.WARNING
    assert said


def test_a_nan_ends_it_with_the_checkpoint():
    trainer, said, signals, _ = run(200, lambda step, loss: float("nan") if step == 120 else loss)
    assert len(signals) == 121
    assert signals[-1].level is DivergenceLevel.Critical
    assert said == ["Critical: loss is nan"]
    assert trainer.tally.rollbacks == 1


def test_a_warning_forces_full_training():
    trainer, said, _, _ = run(131, lambda step, loss: loss * (1e6 if step == 100 else 1))
    assert len(said) == 1
    assert trainer.controller.phase is Phase.FULL
    assert trainer.controller.remaining == 50 - 30


def test_the_literal_rule_speaks_too():
    _, said, _, _ = run(115, lambda step, loss: loss * (3 if step >= 100 else 1), "seed")
    assert any("loss" in line for line in said)


def test_asking_twice_of_one_step_is_asking_once():
    problem, answers = Problem(), []
    for times in (1, 3):
        problem = Problem()
        trainer = HybridTrainer(problem.model, problem.optimizer, CONFIG, loss_fn=problem.loss)
        monitor = DivergenceMonitor(CONFIG)
        for step in range(1, 150):
            loss = trainer.step(problem.batch(step)).loss * (1e6 if step == 149 else 1)
            told = [repr(monitor.check_divergence(trainer.state(), loss)) for _ in range(times)]
            assert len(set(told)) == 1
        answers.append((told[0], monitor.state_dict()))
    assert answers[0] == answers[1]


def test_the_trainers_own_monitor_learns_nothing_from_being_asked():
    problem = Problem()
    trainer = HybridTrainer(problem.model, problem.optimizer, CONFIG, loss_fn=problem.loss)
    before = trainer.monitor.state_dict()
    trainer.monitor.check_divergence(trainer.state(), 5.0)
    assert trainer.monitor.state_dict() == before


def test_levels_and_phases_have_the_seeds_names_and_pythons():
    assert [level.name for level in DivergenceLevel] == ["NORMAL", "CAUTION", "WARNING", "CRITICAL"]
    assert DivergenceLevel.Critical is DivergenceLevel.CRITICAL
    assert Phase.Full is Phase.FULL
    assert [str(phase) for phase in Phase] == ["warmup", "full", "predict", "correct"]
