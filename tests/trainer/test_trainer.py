"""HybridTrainer as its user sees it: phases, jumps, counts, guards, rollback and determinism."""

import re

import pandas as pd
import pytest
import torch
from support.problem import Problem
from torch import nn

from hybrid_sweep.errors import UserError
from hybrid_sweep.trainer import HybridConfig, HybridTrainer, Phase, TrainingDiverged
from hybrid_sweep.trainer.divergence.monitor import DivergenceLevel

EASY = HybridConfig(
    warmup_steps=40, full_steps=20, max_predict_steps=30, confidence_threshold=0.01, horizon_rule="fixed"
)


def trainer_for(problem, config=EASY, **keywords):
    return HybridTrainer(problem.model, problem.optimizer, config, loss_fn=problem.loss, **keywords)


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def letters(trainer):
    return "".join(s.phase[0] * s.length for s in trainer.trace())


class TestShutGate:
    """With a threshold of 0.999 the trainer is plain training, to the last bit."""

    def test_it_learns_from_one_phase_in_eight_and_tells_its_confidence(self):
        def trained(threshold):
            problem = Problem()
            config = HybridConfig(warmup_steps=20, full_steps=10, confidence_threshold=threshold)
            trainer = trainer_for(problem, config)
            return trainer, trainer.run(problem.batch, 380)

        (rare, told), (often, _) = trained(0.999), trained(0.99)
        assert often.meter.calls["update"] == 36  # Warmup, and all Full phases but the one that ends the run
        assert rare.meter.calls["update"] == 5
        assert told.max_confidence_reached > 0
        assert letters(rare) == letters(often)

    @pytest.mark.parametrize("dropout", [0.0, 0.5])
    @pytest.mark.parametrize("norm", [False, True])
    @pytest.mark.parametrize("make", ["sgd", "momentum", "adam", "lbfgs"])
    def test_bit_identical_to_the_plain_loop(self, dropout, norm, make):
        def build():
            problem = Problem(dropout=dropout, norm=norm)
            optimizers = {
                "sgd": lambda p: torch.optim.SGD(p, lr=0.05),
                "momentum": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True),
                "adam": lambda p: torch.optim.AdamW(p, lr=1e-3),
                "lbfgs": lambda p: torch.optim.LBFGS(p, lr=0.001, max_iter=3),
            }
            problem.optimizer = optimizers[make](problem.model.parameters())
            return problem

        plain = build()
        losses = []
        for step in range(1, 151):
            batch = plain.batch(step)

            def closure(batch=batch):
                plain.optimizer.zero_grad()
                loss = plain.loss(plain.model, batch)
                loss.backward()
                return loss

            losses.append(plain.optimizer.step(closure).item())

        hybrid = build()
        trainer = trainer_for(hybrid, HybridConfig(warmup_steps=30, confidence_threshold=0.999))
        seen = [trainer.step(hybrid.batch(step)) for step in range(1, 151)]
        assert [r.loss for r in seen] == losses
        assert torch.equal(weights(hybrid.model), weights(plain.model))
        for a, b in zip(hybrid.model.buffers(), plain.model.buffers(), strict=True):
            assert torch.equal(a, b)
        assert trainer.training_statistics().predict_phases == 0

    def test_clipping_and_schedule_too(self):
        def schedule(problem):
            return torch.optim.lr_scheduler.CosineAnnealingLR(problem.optimizer, 150)

        plain, hybrid = Problem(), Problem()
        rates = schedule(plain)
        for step in range(1, 151):
            plain.optimizer.zero_grad()
            plain.loss(plain.model, plain.batch(step)).backward()
            nn.utils.clip_grad_norm_(plain.model.parameters(), 0.5)
            plain.optimizer.step()
            rates.step()
        trainer = trainer_for(
            hybrid,
            HybridConfig(confidence_threshold=0.999),
            lr_scheduler=schedule(hybrid),
            max_grad_norm=0.5,
        )
        trainer.run(hybrid.batch, 150)
        assert torch.equal(weights(hybrid.model), weights(plain.model))


class TestPhases:
    def test_cycle_trace_and_backward_calls(self, problem):
        trainer = trainer_for(problem)
        calls = []
        for step in range(1, 601):
            before = trainer.tally.backward_calls
            result = trainer.step(problem.batch(step))
            calls.append((result.phase, trainer.tally.backward_calls - before))
        assert re.match(r"w{40}((f{20})+p{30}c{5}){7,}", letters(trainer))
        for phase, backward in calls:
            assert backward == (1 if phase in (Phase.WARMUP, Phase.FULL) else 0)

    def test_predict_is_one_jump_that_moves_the_weights_and_writes_no_gradient(self, problem):
        trainer = trainer_for(problem)
        for step in range(1, 61):
            trainer.step(problem.batch(step))
        problem.optimizer.zero_grad()
        before = weights(problem.model)
        first = trainer.step(problem.batch(61))
        after = weights(problem.model)
        assert first.phase is Phase.PREDICT
        assert not torch.equal(before, after)
        for step in range(62, 91):
            result = trainer.step(problem.batch(step))
            assert result.phase is Phase.PREDICT
            assert result.loss_is_predicted
            assert result.gradient_norm is None
            assert torch.equal(weights(problem.model), after)
        assert all(p.grad is None for p in problem.model.parameters())
        assert trainer.step(problem.batch(91)).phase is Phase.CORRECT

    def test_the_jump_is_the_contracts_displacement(self, problem):
        trainer = trainer_for(problem, EASY.replace(gates="off"))
        for step in range(1, 61):
            trainer.step(problem.batch(step))
        before, direction = weights(problem.model), trainer.planner.predictor.direction()
        trainer.step(None)
        shaped = trainer.planner.groups.views(direction)
        expected = before + 30 * torch.cat([d.flatten() for d in shaped])
        torch.testing.assert_close(weights(problem.model), expected)

    def test_correct_runs_five_forward_passes(self, problem):
        trainer = trainer_for(problem)
        trainer.run(problem.batch, 100)
        assert trainer.tally.forward_only_calls == 5
        assert not problem.model[0].weight.grad.isnan().any()

    def test_run_and_step_are_the_same_training(self):
        for interval in (0, 7):
            by_step, by_run = Problem(), Problem()
            config = EASY.replace(correction_interval=interval)
            one, other = trainer_for(by_step, config), trainer_for(by_run, config)
            one.controller.total_steps = 400
            for step in range(1, 401):
                one.step(by_step.batch(step))
            other.run(by_run.batch, 400)
            assert torch.equal(weights(by_step.model), weights(by_run.model))
            assert one.trace() == other.trace()

    def test_run_does_not_load_predicted_batches(self, problem):
        trainer = trainer_for(problem)
        trainer.run(problem.batch, 400)
        kept = [i + 1 for i, letter in enumerate(letters(trainer)) if letter != "p"]
        assert problem.loaded == kept
        assert len(kept) < 400

    def test_batches_as_sequence_and_as_iterable(self):
        a, b = Problem(), Problem()
        trainer_for(a).run([a.batch(s) for s in range(1, 51)], 200)
        assert trainer_for(b).run(iter([b.batch(1)] * 500), 200).steps == 200
        with pytest.raises(UserError, match="run out"):
            trainer_for(Problem()).run(iter([]), 10)

    def test_force_phase(self, problem):
        trainer = trainer_for(problem, EASY.replace(warmup_steps=5))
        for step in range(1, 11):
            trainer.step(problem.batch(step))
        trainer.force_phase(Phase.FULL, 50)
        seen = [trainer.step(problem.batch(10 + i)).phase for i in range(1, 52)]
        assert seen[:50] == [Phase.FULL] * 50
        assert seen[50] is Phase.PREDICT
        with pytest.raises(UserError, match="steps=0"):
            trainer.force_phase(Phase.FULL, 0)

    def test_rust_mode_predicts_again_after_correct(self, problem):
        trainer = trainer_for(problem, EASY.replace(cycle_mode="chained"))
        trainer.run(problem.batch, 600)
        assert "pc" + "ccccp" in letters(trainer)


class TestMicroCorrections:
    @pytest.mark.parametrize(
        ("horizon", "interval", "expected"), [(60, 15, 4), (60, 0, 0), (30, 40, 0), (30, 30, 1), (20, 7, 2)]
    )
    def test_interval_logic(self, problem, horizon, interval, expected):
        trainer = trainer_for(
            problem,
            EASY.replace(
                max_predict_steps=horizon, correction_interval=interval, guard_tolerance=1e6, stop_fraction=0
            ),
        )
        trainer.run(problem.batch, 60 + horizon + 5)
        assert trainer.training_statistics().micro_corrections == expected
        assert [s.corrections for s in trainer.trace() if s.phase == "predict"] == [expected]

    def test_disabled_when_zero(self, problem):
        trainer = trainer_for(problem, EASY.replace(correction_interval=0))
        trainer.run(problem.batch, 500)
        assert trainer.training_statistics().micro_corrections == 0

    def test_probe_steps_report_a_measured_loss(self, problem):
        trainer = trainer_for(problem, EASY.replace(correction_interval=10))
        results = [trainer.step(problem.batch(step)) for step in range(1, 91)]
        measured = [r.step for r in results[60:] if not r.loss_is_predicted]
        assert measured == [70, 80, 90]

    def test_it_changes_the_weights(self):
        runs = []
        for interval in (0, 10):
            problem = Problem()
            trainer_for(problem, EASY.replace(correction_interval=interval)).run(problem.batch, 300)
            runs.append(weights(problem.model))
        assert not torch.allclose(*runs)


class TestGuards:
    def test_a_planted_divergence_ends_the_horizon_at_the_probe(self, problem):
        trainer = trainer_for(problem, EASY.replace(correction_interval=7))
        for step in range(1, 61):
            trainer.step(problem.batch(step))
        before = weights(problem.model)
        bad = (torch.zeros(32, 6), torch.full((32, 1), 100.0))  # whatever the weights, a huge loss
        phases = [trainer.step(bad).phase for _ in range(8)]
        assert phases == [Phase.PREDICT] * 7 + [Phase.CORRECT]
        assert trainer.training_statistics().abort_rate == 1.0
        torch.testing.assert_close(weights(problem.model), before)  # the only sub-jump was taken back

    def test_correct_goes_half_way_back_from_a_lost_jump(self, problem):
        trainer = trainer_for(problem)
        for step in range(1, 61):
            trainer.step(problem.batch(step))
        before = weights(problem.model)
        bad = (torch.zeros(32, 6), torch.full((32, 1), 100.0))
        trainer.step(bad)
        jumped = weights(problem.model)
        for _ in range(34):
            trainer.step(bad)
        torch.testing.assert_close(weights(problem.model), (before + jumped) / 2)
        assert trainer.tally.aborted_horizons == 1

    def test_one_nan_rolls_back_and_the_run_goes_on(self, problem):
        trainer = trainer_for(problem)

        def load(step):
            x, y = problem.batch(step)
            return (x, y * float("nan")) if step == 150 else (x, y)

        statistics = trainer.run(load, 400)
        assert statistics.rollbacks == 1
        assert statistics.nonfinite_steps == 1
        assert statistics.steps == 400
        assert torch.isfinite(weights(problem.model)).all()

    @pytest.mark.parametrize("step", [69, 70, 72])
    def test_one_nan_gradient_is_survived_wherever_it_falls(self, problem, step):
        seen = []

        def poison(gradient):
            seen.append(None)
            return gradient * float("nan") if len(seen) == step else gradient

        problem.model[0].weight.register_hook(poison)
        statistics = trainer_for(problem).run(problem.batch, 400)
        assert statistics.rollbacks >= 1
        assert torch.isfinite(weights(problem.model)).all()

    def test_the_guard_works_below_zero(self):
        runs = []
        for shift in (0.0, -50.0):
            problem = Problem()
            trainer = HybridTrainer(
                problem.model,
                problem.optimizer,
                EASY.replace(correction_interval=10),
                loss_fn=lambda model, batch, p=problem, s=shift: p.loss(model, batch) + s,
            )
            runs.append(trainer.run(problem.batch, 400).abort_rate)
        assert runs == [0.0, 0.0]

    def test_a_log_does_not_change_the_training(self, tmp_path):
        runs = []
        for log in (None, tmp_path / "log.csv"):
            problem = Problem()
            trainer_for(problem, divergence_log=log).run(problem.batch, 300)
            runs.append(weights(problem.model))
        assert torch.equal(*runs)

    def test_the_schedule_goes_on_across_a_rollback(self, problem):
        schedule = torch.optim.lr_scheduler.StepLR(problem.optimizer, 10, gamma=0.9)
        trainer = trainer_for(problem, lr_scheduler=schedule)
        trainer.run(problem.batch, 200)
        trainer.rollback_to_checkpoint()
        assert schedule.last_epoch == 200
        assert problem.optimizer.param_groups[0]["lr"] == pytest.approx(0.05 * 0.9**20)

    def test_a_checkpoint_can_be_gone_back_to_at_once(self, problem):
        schedule = torch.optim.lr_scheduler.StepLR(problem.optimizer, 10, gamma=0.9)
        trainer = trainer_for(problem, lr_scheduler=schedule)
        trainer.run(problem.batch, 55)
        before = weights(problem.model)
        trainer.take_checkpoint()
        trainer.rollback_to_checkpoint()
        assert torch.equal(weights(problem.model), before)
        trainer.run(problem.batch, 100)
        assert schedule.last_epoch == 100

    def test_a_forced_correct_without_a_jump_moves_nothing(self, problem):
        trainer = trainer_for(problem, HybridConfig(warmup_steps=5))
        for step in range(1, 8):
            trainer.step(problem.batch(step))
        before = weights(problem.model)
        trainer.force_phase(Phase.CORRECT, 5)
        for step in range(8, 13):
            trainer.step(problem.batch(step))
        assert torch.equal(weights(problem.model), before)

    def test_too_many_rollbacks_are_a_divergence(self, problem):
        trainer = trainer_for(problem, EASY.replace(max_rollbacks=2))
        with pytest.raises(TrainingDiverged, match="2 rollbacks"):
            trainer.run(lambda step: (torch.zeros(32, 6), torch.full((32, 1), float("nan"))), 100)

    def test_rollback_restores_everything(self):
        problem = Problem(dropout=0.3, norm=True, momentum=0.9)
        trainer = trainer_for(problem)
        for step in range(1, 121):
            trainer.step(problem.batch(step))
        trainer.take_checkpoint()
        random = torch.get_rng_state()
        twin = [trainer.step(problem.batch(step)).loss for step in range(121, 166)]
        with torch.no_grad():
            for p in problem.model.parameters():
                p.fill_(float("nan"))
        trainer.rollback_to_checkpoint()
        assert torch.equal(torch.get_rng_state(), random)
        again = [trainer.step(problem.batch(step)).loss for step in range(121, 166)]
        assert again == pytest.approx(twin, rel=1e-6)


class TestState:
    def test_optimizer_state_stays_and_schedule_advances_across_a_jump(self):
        problem = Problem(momentum=0.9)
        schedule = torch.optim.lr_scheduler.StepLR(problem.optimizer, 10, gamma=0.9)
        trainer = trainer_for(problem, lr_scheduler=schedule)
        for step in range(1, 61):
            trainer.step(problem.batch(step))
        momentum = [s["momentum_buffer"].clone() for s in problem.optimizer.state.values()]
        for step in range(61, 91):
            trainer.step(problem.batch(step))
        for before, state in zip(momentum, problem.optimizer.state.values(), strict=True):
            assert torch.equal(before, state["momentum_buffer"])
        assert schedule.last_epoch == 90
        trainer.run(lambda step: problem.batch(step), 300)
        assert schedule.last_epoch == 300

    def test_a_jump_shrinks_with_the_learning_rate(self):
        moved = []
        for gamma in (1.0, 0.1):
            problem = Problem()
            schedule = torch.optim.lr_scheduler.MultiStepLR(problem.optimizer, [60], gamma=gamma)
            trainer = trainer_for(problem, EASY.replace(gates="off"), lr_scheduler=schedule)
            for step in range(1, 61):
                trainer.step(problem.batch(step))
            before = weights(problem.model)
            trainer.step(None)
            moved.append(float((weights(problem.model) - before).norm()))
        assert moved[1] == pytest.approx(0.1 * moved[0], rel=1e-4)

    def test_batchnorm_moves_in_forward_passes_only(self):
        problem = Problem(norm=True)
        trainer = trainer_for(problem)
        for step in range(1, 61):
            trainer.step(problem.batch(step))
        before = problem.model[1].running_mean.clone()
        for _ in range(30):
            trainer.step(problem.batch(1))
        assert torch.equal(problem.model[1].running_mean, before)
        trainer.step(problem.batch(91))
        assert not torch.equal(problem.model[1].running_mean, before)

    def test_frozen_parameters_never_move(self):
        problem = Problem()
        problem.model[0].requires_grad_(False)
        before = problem.model[0].weight.clone()
        trainer_for(problem).run(problem.batch, 300)
        assert torch.equal(problem.model[0].weight, before)

    def test_parameters_frozen_on_the_way_move_no_more_until_they_are_trained_again(self, problem):
        trainer, layer = trainer_for(problem), problem.model[0]
        trainer.run(problem.batch, 100)
        before = layer.weight.clone()
        layer.requires_grad_(False)
        assert trainer.run(problem.batch, 300).predict_phases > 1
        assert torch.equal(layer.weight, before)
        layer.requires_grad_(True)
        trainer.run(problem.batch, 400)
        assert not torch.equal(layer.weight, before)

    def test_same_seed_same_losses(self):
        runs = []
        for _ in range(2):
            problem = Problem(dropout=0.2)
            trainer = trainer_for(problem, EASY.replace(correction_interval=10))
            runs.append([trainer.step(problem.batch(s)).loss for s in range(1, 301)])
        assert runs[0] == runs[1]

    def test_full_phase_leaves_residuals_with_measured_parts_and_a_changed_predictor(self, problem):
        trainer = trainer_for(problem)
        trainer.run(problem.batch, 60)
        first = trainer.planner.dynamics.state_dict()["weights"]
        trainer.run(problem.batch, 130)
        residuals = [r for r in trainer.planner.residuals.residuals if r.layers]
        assert len(residuals) >= 20
        for residual in residuals:
            assert [layer.name for layer in residual.layers] == list(trainer.planner.groups.names)
            assert all(abs(layer.magnitude) < 1e3 for layer in residual.layers)
        assert {layer.magnitude for r in residuals for layer in r.layers} != {0.0}
        now = trainer.planner.dynamics.state_dict()["weights"]
        assert all((a != b).any() for a, b in zip(first, now, strict=True))


class TestTelling:
    def test_every_real_step_tells_its_gradient_norm_while_it_is_the_newest(self, problem):
        trainer = trainer_for(problem)
        results = []
        for step in range(1, 61):
            results.append(trainer.step(problem.batch(step)))
            if step % 2:
                squares = sum(float(p.grad.square().sum()) for p in problem.model.parameters())
                assert results[-1].gradient_norm == pytest.approx(squares**0.5, rel=1e-5)
        assert results[1].gradient_norm is None  # was not read in time, nor due
        assert results[4].gradient_norm > 0

    @pytest.mark.parametrize(
        ("at", "phase"), [(20, Phase.WARMUP), (50, Phase.FULL), (70, Phase.PREDICT), (93, Phase.CORRECT)]
    )
    def test_a_step_that_is_gone_back_from_is_told_by_its_own_phase(self, problem, at, phase):
        trainer = trainer_for(problem, EASY.replace(correction_interval=10))
        for step in range(1, at):
            trainer.step(problem.batch(step))
        x, y = problem.batch(at)
        assert trainer.step((x, y * float("nan"))).phase is phase
        assert trainer.tally.rollbacks == 1
        assert trainer.step(problem.batch(at + 1)).phase is Phase.FULL

    def test_statistics_after_a_run(self, problem):
        trainer = trainer_for(problem)
        statistics = trainer.run(problem.batch, 440)
        trace = letters(trainer)
        assert statistics.backward_reduction_pct == pytest.approx(
            100 * (1 - (trace.count("w") + trace.count("f")) / 440)
        )
        assert statistics.average_loss > 0
        assert 0 < statistics.max_confidence_reached <= 0.99
        assert statistics.forecast_skill.value <= 1 and statistics.confidence_skill.value <= 1
        assert statistics.realised_horizon_mean == pytest.approx(30, abs=1)
        assert statistics.quality_score is None
        scored = trainer.training_statistics(reference_loss=0.234, held_out_loss=0.235)
        assert scored.quality_score == pytest.approx(0.99574, abs=1e-5)

    def test_the_highest_confidence_is_one_that_could_have_opened_the_gate(self, problem):
        trainer = trainer_for(problem, EASY.replace(confidence_threshold=0.98, calibration="none"))
        offered, told = [], []

        def note():
            phase, at = trainer.controller.phase, trainer.position
            if phase is Phase.FULL and at.trusted and trainer.tally.steps <= 0.95 * 440 - 10:
                offered.append(at.confidence)
            told.append(at.confidence)

        trainer.at_decisions(note)
        highest = trainer.run(problem.batch, 440).max_confidence_reached
        assert highest == max(offered)
        assert len(offered) < len(told), "not all decisions could"

    @pytest.mark.parametrize("shut", [{"minimum_cosine": 0.9999}, {"stop_fraction": 0.99}])
    def test_where_nothing_could_open_the_gate_no_confidence_is_told(self, problem, shut):
        trainer = trainer_for(problem, EASY.replace(**shut))
        trainer.run(problem.batch, 60)  # Warmup and a Full phase: directions are compared from the second on
        trainer.run(problem.batch, 200)
        told = trainer.training_statistics()
        assert told.predict_phases == 0
        assert told.max_confidence_reached is None

    def test_a_step_prints_as_in_the_seed(self, problem):
        text = str(trainer_for(problem).step(problem.batch(1)))
        assert re.fullmatch(r"Step 1: Loss=\d+\.\d{4}, Phase=warmup, Backward Reduction=0\.0%", text)

    def test_a_predicted_loss_read_too_late_is_nan(self, problem):
        trainer = trainer_for(problem)
        results = [trainer.step(problem.batch(step)) for step in range(1, 130)]
        assert results[70].loss_is_predicted
        assert results[70].loss != results[70].loss
        assert results[120].loss > 0

    def test_state_is_a_read_only_copy(self, problem):
        trainer = trainer_for(problem)
        trainer.step(problem.batch(1))
        state = trainer.state()
        assert (state.step, state.phase, state.steps_in_current_phase) == (1, Phase.WARMUP, 1)
        with pytest.raises(AttributeError):
            state.step = 5

    def test_peeking_at_the_next_phase_changes_nothing(self):
        runs = []
        for peek in (False, True):
            problem = Problem()
            trainer = trainer_for(problem)
            for step in range(1, 200):
                trainer.step(problem.batch(step))
                if peek:
                    trainer.controller.decide(step, 0.9)
            runs.append(weights(problem.model))
        assert torch.equal(*runs)

    def test_the_seeds_calls_look_and_change_nothing(self, problem):
        trainer = trainer_for(problem)
        for step in range(1, 61):
            trainer.step(problem.batch(step))
        monitor, controller = trainer.monitor.state_dict(), trainer.controller.state_dict()
        decision = trainer.controller.select_next_phase(trainer.state())
        assert (decision.phase, decision.steps) == (Phase.PREDICT, 30)
        signal = trainer.monitor.check_divergence(trainer.state(), float("nan"))
        assert signal.level is DivergenceLevel.CRITICAL
        assert signal.confidence == trainer.state().confidence
        assert trainer.monitor.check_divergence(trainer.state(), trainer.state().loss).level == 0
        assert (trainer.monitor.state_dict(), trainer.controller.state_dict()) == (monitor, controller)

    def test_divergence_log_has_a_row_a_step(self, problem, tmp_path):
        path = tmp_path / "divergence_log.csv"
        trainer = trainer_for(problem, EASY.replace(correction_interval=8), divergence_log=path)
        trainer.run(problem.batch, 250)
        assert (
            path.read_text().splitlines()[0]
            == "step,loss,predicted_loss,deviation,gradient_norm,confidence,level"
        )
        table = pd.read_csv(path)
        assert list(table["step"]) == list(range(1, 251))
        predicted = [i for i, letter in enumerate(letters(trainer)) if letter == "p"]
        rows = table.iloc[predicted]
        assert rows["gradient_norm"].isna().all()
        assert rows["predicted_loss"].notna().all()
        assert table["predicted_loss"][:40].isna().all()
        assert set(table["level"]) <= set(range(4))

    def test_plain_noise_raises_no_warning(self, problem):
        statistics = trainer_for(problem).run(problem.batch, 2000)
        assert statistics.warning_rate < 0.05
        assert DivergenceLevel.WARNING == 2


def test_bad_construction_is_a_sentence(problem):
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(problem.optimizer)
    with pytest.raises(UserError, match="metric"):
        trainer_for(problem, lr_scheduler=plateau)
    problem.model.requires_grad_(False)
    with pytest.raises(UserError, match="trainable"):
        trainer_for(problem)
