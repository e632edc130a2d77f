"""One contract that every predictor keeps, and the mathematics of each."""

import copy

import pytest
import torch
from torch import nn

from hybrid_sweep.trainer.predictors import PREDICTORS, EmaVelocity, LayerGroups, OuterMomentum


def model(layers=3):
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Linear(4, 4) for _ in range(layers))).double()


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
    groups = LayerGroups.of(net)
    assert len(groups.parameters) == 36
    assert groups.of_parameter == sorted(groups.of_parameter)
    assert set(groups.of_parameter) == set(range(8))
    assert groups.names[0] == "0"


def test_weight_and_bias_of_a_layer_share_a_group():
    assert LayerGroups.of(model(3)).of_parameter == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("name", PREDICTORS)
class TestContract:
    def test_apply_moves_each_group_by_its_steps_of_the_direction(self, name):
        net = model()
        predictor = PREDICTORS[name](LayerGroups.of(net), 0.9, 20)
        walk(net, predictor, 12)
        predictor.close_full()
        before = [p.clone() for p in net.parameters()]
        direction = predictor.direction()
        predictor.apply([0.0, 3.0, -1.0])
        for i, (p, b, d) in enumerate(zip(net.parameters(), before, direction, strict=True)):
            torch.testing.assert_close(p, b + [0.0, 3.0, -1.0][i // 2] * d)

    def test_a_jump_does_not_feed_its_own_direction(self, name):
        net = model()
        predictor = PREDICTORS[name](LayerGroups.of(net), 0.9, 20)
        walk(net, predictor, 12)
        predictor.close_full()
        before = predictor.direction()
        predictor.apply([50.0] * 3)
        for a, b in zip(before, predictor.direction(), strict=True):
            torch.testing.assert_close(a, b)

    def test_taking_a_jump_back_restores_the_weights(self, name):
        net = model()
        predictor = PREDICTORS[name](LayerGroups.of(net), 0.9, 20)
        walk(net, predictor, 12)
        before = [p.clone() for p in net.parameters()]
        predictor.apply([7.0, 8.0, 9.0])
        predictor.apply([-7.0, -8.0, -9.0])
        for a, b in zip(before, net.parameters(), strict=True):
            torch.testing.assert_close(a, b)

    def test_state_round_trip_continues_identically(self, name):
        net = model()
        predictor = PREDICTORS[name](LayerGroups.of(net), 0.9, 20)
        walk(net, predictor, 12)
        predictor.close_full()
        predictor.start_full()
        twin_net = copy.deepcopy(net)
        twin = PREDICTORS[name](LayerGroups.of(twin_net), 0.9, 20)
        twin.load_state_dict(predictor.state_dict())
        walk(net, predictor, 5, seed=2)
        walk(twin_net, twin, 5, seed=2)
        assert predictor.close_full() == twin.close_full()
        for a, b in zip(predictor.direction(), twin.direction(), strict=True):
            assert torch.equal(a, b)


def test_ema_is_the_bias_corrected_average_of_real_updates():
    net = model()
    predictor = EmaVelocity(LayerGroups.of(net), 0.9, 1)
    updates = walk(net, predictor, 40)
    velocity = [torch.zeros_like(u) for u in updates[0]]
    for update in updates:
        velocity = [0.9 * v + 0.1 * u for v, u in zip(velocity, update, strict=True)]
    for v, d in zip(velocity, predictor.direction(), strict=True):
        torch.testing.assert_close(d, v / (1 - 0.9**40))


@pytest.mark.parametrize("steps", [1, 3, 4, 5, 41])
def test_ema_in_strides_is_unbiased_at_any_step(steps):
    net = model()
    predictor = EmaVelocity(LayerGroups.of(net), 0.9, 20)
    for _ in range(steps):
        with torch.no_grad():
            for p in net.parameters():
                p += 0.01
        predictor.observe()
    for d in predictor.direction():
        torch.testing.assert_close(d, torch.full_like(d, 0.01))


def test_outer_momentum_of_one_phase_is_its_mean_step():
    net = model()
    predictor = OuterMomentum(LayerGroups.of(net), 0.97, 20)
    start = [p.clone() for p in net.parameters()]
    assert not predictor.ready
    walk(net, predictor, 20)
    predictor.close_full()
    assert predictor.ready
    for s, p, d in zip(start, net.parameters(), predictor.direction(), strict=True):
        torch.testing.assert_close(d, (p - s) / 20)


def test_realised_is_one_where_the_direction_held_and_minus_one_where_it_turned():
    net = model()
    predictor = EmaVelocity(LayerGroups.of(net), 0.9, 20)

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
    assert realised.ratios == pytest.approx((1, 1, 1))
    assert realised.cosines == pytest.approx((1, 1, 1))
    assert realised.overall == pytest.approx(1)
    assert cosine == pytest.approx(1)
    predictor.start_full()
    steps(-1)
    realised, cosine = predictor.close_full()
    assert realised.ratios == pytest.approx((-1, -1, -1))
    assert cosine == pytest.approx(-1, abs=1e-3)


def spectral_radius(decay, full_steps, horizon, eta_lambda):
    """Return the growth a cycle of an EMA-velocity run on a noiseless quadratic mode."""
    theta = torch.nn.Parameter(torch.ones(1, dtype=torch.double))
    net = nn.ParameterList([theta])
    predictor = EmaVelocity(LayerGroups.of(net), decay, full_steps)
    sizes = []
    for _ in range(400):
        for _ in range(full_steps):
            with torch.no_grad():
                theta.mul_(1 - eta_lambda)
            predictor.observe()
        predictor.apply([float(horizon)])
        sizes.append(abs(theta.item()) + 1e-300)
        if sizes[-1] > 1e6:
            return 2.0
    return (sizes[-1] / sizes[100]) ** (1 / 300)


@pytest.mark.parametrize(("full_steps", "limit"), [(10, 7.25), (20, 4.0)])
def test_ema_is_stable_inside_the_published_bound_and_not_far_outside(full_steps, limit):
    modes = (0.002, 0.01, 0.03, 0.06, 0.1, 0.2, 0.5, 1.0, 1.5, 1.95)
    inside = [spectral_radius(0.97, full_steps, limit * full_steps * 0.95, m) for m in modes]
    outside = [spectral_radius(0.97, full_steps, limit * full_steps * 1.3, m) for m in modes]
    assert max(inside) < 1.0
    assert max(outside) > 1.0
