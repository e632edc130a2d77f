"""One contract that every predictor keeps, and the mathematics of each."""

import copy
import io

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from hybrid_sweep.errors import UserError
from hybrid_sweep.trainer import HybridConfig, HybridTrainer
from hybrid_sweep.trainer.cost_meter import CostMeter, Work
from hybrid_sweep.trainer.predictors import PREDICTORS, EmaVelocity, LayerGroups, OuterMomentum, rre
from hybrid_sweep.trainer.random_state import random_state
from hybrid_sweep.trainer.stability import BOUNDED, spectral_radius
from hybrid_sweep.trainer.train_step import TrainStep

CONFIG = HybridConfig(velocity_decay=0.9, full_steps=20)


def model(layers=3):
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Linear(4, 4) for _ in range(layers))).double()


class Run:
    """A model in training, and a predictor that watches."""

    def __init__(self, name, config=CONFIG, optimizer=None):
        self.net = model()
        optimizer = (optimizer or (lambda p: torch.optim.SGD(p, 0.05, momentum=0.9)))(self.net.parameters())
        self.plain = TrainStep(self.net, optimizer, lambda net, batch: F.mse_loss(net(batch[0]), batch[1]))
        self.predictor = PREDICTORS[name].from_config(LayerGroups.from_model(self.net), config, self.plain)
        self.count = len(self.predictor.groups.names)
        self.step = 0

    @staticmethod
    def batch(step):
        generator = torch.Generator().manual_seed(step)
        x = torch.randn(32, 4, generator=generator, dtype=torch.double)
        return x, x.flip(1) + 0.1

    def train(self, steps):
        for _ in range(steps):
            self.step += 1
            self.plain(self.batch(self.step))
            self.predictor.observe()

    def cycle(self, steps=20):
        self.predictor.start_full()
        self.train(steps)
        result = self.predictor.close_full()
        self.foresee()
        return result

    def foresee(self, begin=0, steps=10):
        if hasattr(self.predictor, "foresee"):
            meter = CostMeter()
            self.predictor.foresee(self.batch, self.step + begin, begin, steps, meter)
            assert meter.calls[Work.PLAIN] == steps

    def twin(self, name):
        """Return another run, with this one's state."""
        twin = Run(name)
        twin.net.load_state_dict(self.net.state_dict())
        twin.plain.optimizer.load_state_dict(copy.deepcopy(self.plain.optimizer.state_dict()))
        twin.predictor.load_state_dict(self.predictor.state_dict())
        twin.step = self.step
        return twin

    def shaped(self, vector):
        return self.predictor.groups.views(vector)

    def weights(self):
        return [p.detach().clone() for p in self.net.parameters()]


@pytest.fixture
def run(name):
    run = Run(name)
    run.train(40)
    run.predictor.close_full()
    run.foresee()
    return run


def walk(net, predictor, steps, seed=1):
    """Move the weights randomly, as an optimizer would, and let the predictor watch."""
    generator = torch.Generator().manual_seed(seed)
    updates = []
    for _ in range(steps):
        update = [
            torch.randn(p.shape, generator=generator, dtype=p.dtype) * 0.01 + 0.01 for p in net.parameters()
        ]
        with torch.no_grad():
            for p, u in zip(net.parameters(), update, strict=True):
                p += u
        predictor.observe()
        updates.append(update)
    return updates


def test_groups_are_at_most_eight_contiguous_layers_and_cover_every_trainable_parameter():
    net = model(19)
    net[3].requires_grad_(False)


@pytest.mark.parametrize("name", PREDICTORS)
class TestContract:
    def test_apply_moves_each_group_by_its_share_of_the_displacement(self, run):
        before, displacement = run.weights(), run.predictor.displacement(0, 10)
        factors = [float(name[0]) - 1 for name in run.predictor.groups.names]  # of layers 0, 1 and 2
        assert len(factors) == run.count == 8
        run.predictor.apply(factors, 0, 10)
        for i, (p, b, d) in enumerate(zip(run.weights(), before, run.shaped(displacement), strict=True)):
            torch.testing.assert_close(p, b + (i // 2 - 1) * d)

    def test_it_predicts_something_unless_it_is_the_zero_displacement(self, run, name):
        assert run.predictor.ready
        assert run.predictor.finite
        moved = run.predictor.displacement(0, 10).abs().sum()
        assert (moved > 0) == (name != "frozen")

    def test_two_sub_jumps_are_one_jump(self, run):
        run.foresee(0, 4)
        run.foresee(4, 6)
        parts = run.predictor.displacement(0, 4) + run.predictor.displacement(4, 10)
        torch.testing.assert_close(parts, run.predictor.displacement(0, 10))

    def test_the_direction_is_the_mean_step_of_a_full_phase(self, run, name):
        if name in ("random", "sign_flipped", "shuffled"):  # judged by the velocity of the EMA
            pytest.skip("a control that only moves otherwise")
        run.foresee(0, 20)
        torch.testing.assert_close(run.predictor.direction() * 20, run.predictor.displacement(0, 20))

    def test_a_jump_does_not_change_what_it_was(self, run):
        before = run.predictor.displacement(0, 10)
        run.predictor.apply([50.0] * run.count, 0, 10)
        torch.testing.assert_close(before, run.predictor.displacement(0, 10))

    def test_a_jump_is_not_learned_from(self, name):
        if name in ("ema_nesterov", "oracle", "optimizer_replay"):
            pytest.skip("takes in its jumps, as Nesterov's method does, or watches no weights")
        directions = []
        for factor in (0.0, 2.0):
            run = Run(name)
            walk(run.net, run.predictor, 40)
            run.predictor.close_full()
            run.predictor.apply([factor] * run.count, 0, 10)
            run.predictor.start_full()
            walk(run.net, run.predictor, 20, seed=2)
            run.predictor.close_full()
            directions.append(run.predictor.direction())
        rtol = 0.01 if name == "rre" else 1e-7  # its cap moves
        torch.testing.assert_close(*directions, rtol=rtol, atol=1e-12)

    def test_taking_a_jump_back_restores_the_weights(self, run):
        before = run.weights()
        run.predictor.apply([7.0] * run.count, 0, 10)
        run.predictor.apply([-7.0] * run.count, 0, 10)
        for a, b in zip(before, run.weights(), strict=True):
            torch.testing.assert_close(a, b)

    def test_global_random_numbers_stay_where_they_are(self, run):
        before = random_state()["torch"]
        run.foresee()
        run.predictor.apply([1.0] * run.count, 0, 10)
        run.cycle()
        assert torch.equal(before, random_state()["torch"])

    @pytest.mark.parametrize("at", [7, 20])
    def test_state_round_trip_continues_identically(self, run, name, at):
        run.predictor.apply([1.0] * run.count, 0, 10)
        run.cycle(at)
        twin = run.twin(name)
        for one in (run, twin):
            one.predictor.apply([0.5 + i / 4 for i in range(one.count)], 0, 10)
        assert run.cycle() == twin.cycle()
        assert torch.equal(run.predictor.displacement(0, 10), twin.predictor.displacement(0, 10))
        for a, b in zip(run.weights(), twin.weights(), strict=True):
            assert torch.equal(a, b)

    @given(data=st.data())
    @settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_whatever_happened_a_twin_from_its_state_goes_on_identically(self, name, data):
        run = Run(name)
        updates = st.sampled_from(["train", "cycle", "jump", "take back"])
        for update in data.draw(st.lists(updates, max_size=8)):
            if update == "train":
                run.train(data.draw(st.integers(1, 9)))
            elif update == "cycle":
                run.cycle(data.draw(st.integers(1, 25)))
            else:
                sign = 1 if update == "jump" else -1
                run.predictor.apply([sign * 0.5, *[sign * 1.0] * (run.count - 2), 0.0], 0, 10)
        twin = run.twin(name)
        for one in (run, twin):
            one.cycle()
            one.predictor.apply([0.5 + i / 16 for i in range(one.count)], 0, 10)
            one.cycle()
        for a, b in zip(run.weights(), twin.weights(), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)  # it may have diverged

    def test_a_run_saved_between_cycles_goes_on_identically(self, name):
        config = HybridConfig(
            warmup_steps=40, max_predict_steps=20, confidence_threshold=0.01, predictor=name
        )

        def trainer(run):
            return HybridTrainer(run.net, run.plain.optimizer, config, loss_fn=run.plain.loss_fn)

        whole, first, second = Run(name), Run(name), Run(name)
        trainer(whole).run(whole.batch, 400)
        before = trainer(first)
        for _ in range(3):
            before.run_cycle(first.batch, 400)
        file = io.BytesIO()
        torch.save(before.state_dict(), file)
        after = trainer(second)
        after.load_state_dict(torch.load(io.BytesIO(file.getvalue()), weights_only=True))
        after.run(second.batch, 400)
        for a, b in zip(whole.weights(), second.weights(), strict=True):
            assert torch.equal(a, b)

    def test_cycles_are_compared_where_there_is_something_to_compare(self, run, name):
        run.predictor.apply([1.0] * run.count, 0, 10)
        realised, cosine = run.cycle()
        assert (realised is None) == (name == "oracle")
        assert (cosine is None) == (name in ("oracle", "frozen"))
        assert cosine is None or -1 <= cosine <= 1

    @pytest.mark.parametrize("interval", [0, 8])
    def test_a_whole_run_of_the_trainer(self, name, interval):
        config = HybridConfig(
            warmup_steps=40,
            max_predict_steps=20,
            confidence_threshold=0.01,
            predictor=name,
            correction_interval=interval,
        )
        run = Run(name)
        trainer = HybridTrainer(run.net, run.plain.optimizer, config, loss_fn=run.plain.loss_fn)
        statistics = trainer.run(run.batch, 400)
        assert statistics.predict_phases > 3
        assert trainer.meter.calls[Work.PLAIN] == statistics.backward_calls
        assert all(torch.isfinite(p).all() for p in run.net.parameters())


def test_ema_is_the_bias_corrected_average_of_real_updates():
    net = model()
    predictor = EmaVelocity(LayerGroups.from_model(net), 0.9, 1)
    updates = walk(net, predictor, 40)
    velocity = [torch.zeros_like(u) for u in updates[0]]
    for update in updates:
        velocity = [0.9 * v + 0.1 * u for v, u in zip(velocity, update, strict=True)]
    for v, d in zip(velocity, predictor.groups.views(predictor.direction()), strict=True):
        torch.testing.assert_close(d, v / (1 - 0.9**40))


@pytest.mark.parametrize("steps", [1, 3, 4, 5, 41])
def test_ema_in_strides_is_unbiased_at_any_step(steps):
    net = model()
    predictor = EmaVelocity(LayerGroups.from_model(net), 0.9, 20)
    for _ in range(steps):
        with torch.no_grad():
            for p in net.parameters():
                p += 0.01
        predictor.observe()
    for d in predictor.groups.views(predictor.direction()):
        torch.testing.assert_close(d, torch.full_like(d, 0.01))


def test_outer_momentum_of_one_phase_is_its_mean_step():
    net = model()
    predictor = OuterMomentum(LayerGroups.from_model(net), 0.97, 20)
    start = [p.clone() for p in net.parameters()]
    assert not predictor.ready
    walk(net, predictor, 20)
    predictor.close_full()
    assert predictor.ready
    for s, p, d in zip(start, net.parameters(), predictor.groups.views(predictor.direction()), strict=True):
        torch.testing.assert_close(d, (p - s) / 20)


def test_realised_is_one_where_the_direction_held_and_minus_one_where_it_turned():
    net = model()
    predictor = EmaVelocity(LayerGroups.from_model(net), 0.9, 20)

    def steps(sign):
        for _ in range(200):
            with torch.no_grad():
                for p in net.parameters():
                    p += sign * 0.01
            predictor.observe()

    steps(1)
    predictor.close_full()
    predictor.start_full()
    steps(1)
    realised, cosine = predictor.close_full()
    assert realised.ratios == pytest.approx([1] * 8)
    assert cosine == pytest.approx(1)
    predictor.start_full()
    steps(-1)
    realised, cosine = predictor.close_full()
    assert realised.ratios == pytest.approx([-1] * 8)
    assert cosine == pytest.approx(-1, abs=1e-3)


class Quadratic:
    """Plain gradient descent on uncoupled quadratic modes, watched by a predictor."""

    def __init__(self, name, decay, full_steps, eta_lambda):
        self.theta = nn.Parameter(torch.ones(len(eta_lambda), dtype=torch.double))
        self.rates = 1 - torch.tensor(eta_lambda, dtype=torch.double)
        net = nn.ParameterList([self.theta])
        self.predictor = PREDICTORS[name](LayerGroups.from_model(net), decay, full_steps)
        self.full_steps = full_steps

    @torch.no_grad()
    def cycle(self):
        self.predictor.start_full()
        for _ in range(self.full_steps):
            self.theta.mul_(self.rates)
            self.predictor.observe()
        self.predictor.close_full()


@pytest.mark.parametrize("name", BOUNDED)
@pytest.mark.parametrize(("full_steps", "ratio"), [(10, 2.5), (10, 6.0), (20, 3.0), (20, 4.5), (15, 3.0)])
def test_the_real_predictors_grow_as_the_computed_spectral_radius_says(name, full_steps, ratio):
    for eta_lambda in (0.01, 0.1, 0.5, 1.5, 1.9):
        run, sizes = Quadratic(name, 0.97, full_steps, [eta_lambda]), []
        for _ in range(420):
            run.cycle()
            run.predictor.apply([1.0], 0, ratio * full_steps)
            sizes.append(abs(run.theta.item()) + 1e-300)
            if sizes[-1] > 1e100:
                break
        measured = (max(sizes[-20:]) / max(sizes[-120:-100])) ** (1 / 100)
        computed = spectral_radius(name, 0.97, full_steps, ratio * full_steps, eta_lambda)[0]
        if 1e-100 < sizes[-1] < 1e100:
            assert measured == pytest.approx(computed, rel=0.02)
        else:
            assert (sizes[-1] > 1) == (computed > 1)


def test_dmd_finds_the_slow_modes_of_a_quadratic_and_runs_them_on_exactly():
    run = Quadratic("dmd", 0.97, 20, [0.002, 0.03])
    run.cycle()
    run.cycle()
    before = run.theta.detach().clone()
    predicted = run.predictor.displacement(0, 75)[:2]
    torch.testing.assert_close(predicted, before * (run.rates**75 - 1), rtol=1e-4, atol=0)
    later = run.predictor.displacement(30, 75)[:2]
    torch.testing.assert_close(later, before * (run.rates**75 - run.rates**30), rtol=1e-4, atol=0)


def test_dmd_goes_straight_on_where_a_mode_would_grow_and_drops_one_that_oscillates():
    growing = Quadratic("dmd", 0.97, 20, [-0.02])
    growing.cycle()
    increment = growing.predictor.increments[-1]
    torch.testing.assert_close(growing.predictor.displacement(0, 8), 2 * increment, rtol=1e-3, atol=0)
    oscillating = Quadratic("dmd", 0.97, 5, [1.8])  # windows of a single step
    oscillating.cycle()
    assert oscillating.predictor.ready
    assert oscillating.predictor.displacement(0, 75).abs().sum() == 0


def test_dmd_keeps_eight_increments_and_none_across_a_jump():
    run = Quadratic("dmd", 0.97, 20, [0.002, 0.03])
    for _ in range(4):
        run.cycle()
        run.predictor.apply([1.0], 0, 20)
    assert run.predictor.follows == [False, True, True, True] * 2
    assert [len(row) for row in run.predictor.gram] == [8] * 8
    for row, left in zip(run.predictor.gram, run.predictor.increments, strict=True):
        assert row == pytest.approx([float(left @ right) for right in run.predictor.increments])


def test_rre_goes_to_the_fixed_point_but_not_far(monkeypatch):
    run = Quadratic("rre", 0.97, 20, [0.05, 0.01])
    start = run.theta.detach().clone()
    run.cycle()
    length = run.predictor.displacement(0, 75).norm()
    torch.testing.assert_close(length, 1e-3 * start.norm())
    monkeypatch.setattr(rre, "CAP", 1e9)
    monkeypatch.setattr(rre, "RIDGE", 1e-12)
    way = run.predictor.displacement(0, 75)[:2]
    torch.testing.assert_close(way, -rre.DAMPING * run.theta.detach(), rtol=1e-3, atol=1e-4)
    assert run.predictor.displacement(0, 10)[:2].equal(way)
    assert run.predictor.displacement(10, 75).abs().sum() == 0


def coasted(optimizer, net, steps):
    """Return the displacement of `steps` of the optimizer with zero gradients."""
    before = [p.detach().clone() for p in net.parameters()]
    for _ in range(steps):
        for p in net.parameters():
            p.grad = torch.zeros_like(p)
        optimizer.step()
    return [p.detach() - b for p, b in zip(net.parameters(), before, strict=True)]


@pytest.mark.parametrize("nesterov", [False, True])
def test_replay_of_sgd_is_what_the_optimizer_does_without_gradients(nesterov):
    def sgd(parameters):
        return torch.optim.SGD(parameters, 0.05, momentum=0.8, nesterov=nesterov)

    run = Run(
        "optimizer_replay", optimizer=lambda p: torch.optim.SGD(p, 0.05, momentum=0.8, nesterov=nesterov)
    )
    run.train(20)
    run.predictor.close_full()
    replayed = run.predictor.displacement(0, 12)
    for a, b in zip(run.shaped(replayed), coasted(run.plain.optimizer, run.net, 12), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
@pytest.mark.parametrize("amsgrad", [False, True])
def test_replay_of_adam_decays_m_and_freezes_the_rest(kind, amsgrad):
    run = Run("optimizer_replay", optimizer=lambda p: kind(p, 1e-3, amsgrad=amsgrad, weight_decay=0.0))
    run.train(300)
    run.predictor.close_full()
    replayed = run.predictor.displacement(0, 5)
    for a, b in zip(run.shaped(replayed), coasted(run.plain.optimizer, run.net, 5), strict=True):
        torch.testing.assert_close(a, b, rtol=0.02, atol=0)  # v decays by 0.5 % in these steps


def test_replay_saturates():
    run = Run("optimizer_replay")
    run.train(20)
    run.predictor.close_full()
    one, many = run.predictor.displacement(0, 1), run.predictor.displacement(0, 10_000)
    torch.testing.assert_close(many, 10 * one)


@pytest.mark.parametrize(
    ("optimizer", "says"),
    [
        (lambda p: torch.optim.SGD(p, 0.1), "needs momentum, and this SGD has none"),
        (lambda p: torch.optim.RMSprop(p, 0.1), "cannot carry RMSprop on: take SGD with momentum"),
    ],
)
def test_replay_refuses_what_has_no_momentum_to_replay(optimizer, says):
    with pytest.raises(UserError, match=says):
        Run("optimizer_replay", optimizer=optimizer)


def test_the_controls_go_as_far_as_the_ema_but_elsewhere():
    runs = {name: Run(name) for name in ("ema", "random", "sign_flipped", "shuffled")}
    ahead = {}
    for name, run in runs.items():
        walk(run.net, run.predictor, 40)
        run.predictor.close_full()
        ahead[name] = run.predictor.displacement(0, 10)
    groups = runs["ema"].predictor.groups
    for name in ("random", "shuffled"):
        assert groups.squares(ahead[name]) == pytest.approx(groups.squares(ahead["ema"]))
    assert ahead["random"] @ ahead["ema"] < 0.5 * ahead["ema"] @ ahead["ema"]
    assert torch.equal(ahead["ema"], -ahead["sign_flipped"])


def test_a_shuffled_jump_has_the_entries_of_the_jump_and_moves_them_among_layers():
    run = Run("shuffled")
    walk(run.net, run.predictor, 40)
    entries = run.predictor.groups.views(EmaVelocity.displacement(run.predictor, 0, 10))
    at = {value.item(): layer for layer, delta in enumerate(entries) for value in delta.flatten()}
    moved = run.predictor._replacement(entries, torch.Generator().manual_seed(0))
    came_from = [(at[v.item()], layer) for layer, delta in enumerate(moved) for v in delta.flatten()]
    assert len(set(at)) == len({v.item() for delta in moved for v in delta.flatten()}) == len(came_from)
    assert sum(before != after for before, after in came_from) > len(came_from) / 2


@pytest.mark.parametrize("name", ["random", "shuffled"])
def test_a_random_direction_is_another_one_each_cycle_and_each_seed(name):
    one, other = Run(name), Run(name, CONFIG.replace(predictor_seed=1))
    drawn = []
    for run in (one, other):
        for _ in range(2):
            run.cycle()
            drawn.append(run.predictor.displacement(0, 1))
    cosines = [F.cosine_similarity(a, b, dim=0).item() for a in drawn for b in drawn if a is not b]
    assert max(map(abs, cosines)) < 0.6


def test_outer_nesterov_counts_the_newest_phase_more():
    directions = {}
    for name in ("outer_momentum", "outer_nesterov"):
        run = Quadratic(name, 0.9, 20, [0.01])
        for _ in range(3):
            run.cycle()
        directions[name] = run.predictor.direction()[0].abs().item()
        newest = abs(run.theta.item() * (1 - 0.99**-20)) / 20
    assert newest < directions["outer_nesterov"] < directions["outer_momentum"]


def test_ema_nesterov_takes_in_its_own_jumps():
    net = nn.ParameterList([nn.Parameter(torch.zeros(2, dtype=torch.double))])
    predictor = PREDICTORS["ema_nesterov"](LayerGroups.from_model(net), 0.97, 10)
    for _ in range(3):  # in a straight valley the velocity stays that of the real steps
        predictor.start_full()
        for _ in range(10):
            with torch.no_grad():
                net[0] += 0.1
            predictor.observe()
        predictor.close_full()
        torch.testing.assert_close(predictor.direction()[:2], torch.full_like(net[0], 0.1))
        predictor.apply([1.5], 0, 30)
    before = net[0].detach().clone()
    predictor.start_full()
    with torch.no_grad():
        net[0] -= 4.5 + 1.0  # the real steps take all of the jump back, and as much again as they had gained
    predictor.observe()
    predictor.close_full()
    assert predictor.direction()[0] < 0.1
    assert net[0][0] < before[0]


class TestOracle:
    def run(self, optimizer, **changes):
        config = HybridConfig(
            warmup_steps=40,
            max_predict_steps=20,
            confidence_threshold=0.01,
            horizon_rule="fixed",
            correct_steps=0,
            stop_fraction=0,
            predictor="oracle",
            gates="original",
            **changes,
        )
        run = Run("oracle", optimizer=optimizer)
        schedule = torch.optim.lr_scheduler.LinearLR(run.plain.optimizer, 1.0, 0.1, 200)
        trainer = HybridTrainer(
            run.net, run.plain.optimizer, config, loss_fn=run.plain.loss_fn, lr_scheduler=schedule
        )
        return run, trainer

    @pytest.mark.parametrize("interval", [0, 6])
    def test_with_plain_sgd_it_is_plain_training(self, interval):
        def sgd(parameters):
            return torch.optim.SGD(parameters, 0.1)

        run, trainer = self.run(sgd, correction_interval=interval, guard_tolerance=1e9)
        statistics = trainer.run(run.batch, 200)
        assert statistics.predict_phases == 4
        assert statistics.backward_calls == 200
        assert trainer.meter.calls[Work.PLAIN] == 200
        plain = Run("frozen", optimizer=sgd)
        schedule = torch.optim.lr_scheduler.LinearLR(plain.plain.optimizer, 1.0, 0.1, 200)
        plain.plain.scheduler = schedule
        plain.train(200)
        for a, b in zip(run.weights(), plain.weights(), strict=True):
            torch.testing.assert_close(a, b)

    def test_neither_optimizer_nor_buffers_are_touched(self):
        run = Run("oracle", optimizer=lambda p: torch.optim.AdamW(p, 1e-3))
        run.train(5)
        before, weights = copy.deepcopy(run.plain.optimizer.state_dict()), run.weights()
        run.foresee()
        assert str(run.plain.optimizer.state_dict()) == str(before)
        assert all(torch.equal(a, b) for a, b in zip(run.weights(), weights, strict=True))

    def test_the_copy_has_what_an_optimizer_adds_to_torchs(self):
        def several(parameters):
            first, *others = parameters
            return [torch.optim.SGD([first], 0.1), Counting(others, 0.1)]

        class Counting(torch.optim.SGD):
            def __init__(self, *arguments):
                super().__init__(*arguments)
                self.steps = 0

            def step(self, closure=None):
                self.steps += 1
                return super().step(closure)

        for make in (lambda p: torch.optim.LBFGS(p, 0.1, max_iter=2), several):
            run = Run("oracle", optimizer=make)
            run.train(5)
            weights = run.weights()
            run.foresee()
            assert all(torch.equal(a, b) for a, b in zip(run.weights(), weights, strict=True))
            assert any(p.any() for p in run.predictor.displacement(0, 10))

    def test_an_optimizer_that_hides_its_parameters_is_refused(self):
        class Hiding:
            def __init__(self, parameters):
                inner = torch.optim.SGD(parameters, 0.1)
                self.step, self.zero_grad = lambda: inner.step(), inner.zero_grad
                self.state_dict, self.load_state_dict = inner.state_dict, inner.load_state_dict
                self.groups = lambda: inner.param_groups

            @property
            def param_groups(self):
                return self.groups()

        run = Run("oracle", optimizer=Hiding)
        run.train(5)
        with pytest.raises(UserError, match="Hiding cannot be copied"):
            run.foresee()

    def test_it_cannot_be_driven_by_single_steps(self):
        run, trainer = self.run(lambda p: torch.optim.SGD(p, 0.1))
        with pytest.raises(UserError, match=r"drive it with run\(\)"):
            for step in range(1, 100):
                trainer.step(run.batch(step))
