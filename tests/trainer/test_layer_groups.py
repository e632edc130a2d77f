"""The weights as one vector, its groups of layers, and the sample that directions are compared on."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from hybrid_sweep.errors import UserError
from hybrid_sweep.trainer.layer_groups import MAX_GROUPS, LayerGroups, Sample, cut_by_size


def model(layers=3):
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Linear(4, 3 if i == layers - 1 else 4) for i in range(layers)))


def test_groups_are_at_most_eight_contiguous_layers_and_cover_every_trainable_parameter():
    net = model(19)
    net[3].requires_grad_(False)
    groups = LayerGroups.from_model(net)
    assert len(groups.sizes) == len(groups.names) == MAX_GROUPS
    assert len(groups.views(groups.vector)) == 36
    assert sum(groups.sizes) == len(groups.vector)
    assert groups.names[0] == "0"


def test_fewer_layers_are_cut_into_eight_parts_by_size_none_of_them_across_two_layers():
    net = nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10))
    groups = LayerGroups.from_model(net)
    assert groups.names == (*(f"0[{i}/6]" for i in range(1, 7)), "2", "4")
    assert sum(groups.sizes[:6]) == 784 * 256 + 256
    assert max(groups.sizes[:6]) - min(groups.sizes[:6]) <= 16
    assert groups.sizes[6:] == [256 * 128 + 128, 128 * 10 + 16]
    ones = groups.flat([torch.ones_like(v) for v in groups.views(groups.vector)])
    assert groups.squares(ones) == [
        *map(float, groups.sizes[:7]),
        1290.0,
    ]  # none is empty


@given(
    units=st.lists(st.integers(1, 5000), min_size=1, max_size=9), count=st.integers(1, 8), unit=st.just(16)
)
def test_pieces_are_cut_whole_and_as_equally_as_can_be(units, count, unit):
    sizes = [unit * each for each in units]
    names, (parts,) = cut_by_size([str(i) for i in range(len(sizes))], [sizes], count, [unit])
    assert len(names) == len(set(names)) == len(parts)
    assert len(parts) == max(min(count, sum(units)), len(sizes)) or min(parts) < 2 * unit
    assert all(part > 0 and part % unit == 0 for part in parts)
    assert [
        sum(part for name, part in zip(names, parts, strict=True) if name.partition("[")[0] == str(i))
        for i in range(len(sizes))
    ] == sizes


def test_weight_and_bias_of_a_layer_share_a_group():
    groups = LayerGroups.from_model(model(8))
    assert groups.sizes == [32] * 8  # 16 + 4 or 12 + 3 floats, each rounded up to 64 bytes


def test_what_is_done_to_the_vector_is_done_to_the_model_and_back():
    net = model()
    before = [p.detach().clone() for p in net.parameters()]
    groups = LayerGroups.from_model(net)
    for p, b in zip(net.parameters(), before, strict=True):
        assert torch.equal(p, b)
        assert p.data_ptr() % 64 == groups.vector.data_ptr() % 64
    groups.vector.mul_(2)
    for p, b in zip(net.parameters(), before, strict=True):
        assert torch.equal(p, 2 * b)
    with torch.no_grad():
        for p in net.parameters():
            p.zero_()
    assert groups.vector.abs().sum() == 0


def test_the_vector_can_be_moved_while_it_is_held():
    net = model()
    groups = LayerGroups.from_model(net)
    held, before = groups.vector, groups.vector.clone()
    rows = torch.zeros(3, len(held))
    groups.move(rows[1])
    assert groups.in_place()
    assert held is groups.vector
    assert torch.equal(rows[1], before)
    held.mul_(2)
    with torch.no_grad():
        next(net.parameters()).add_(1)
    first = before[: next(net.parameters()).numel()]
    assert torch.equal(rows[1, : len(first)], 2 * first + 1)
    assert rows[[0, 2]].abs().sum() == 0
    for of_all, own in zip(groups.views(rows), net.parameters(), strict=True):
        assert torch.equal(of_all[1], own)
        assert of_all.shape == (3, *own.shape)


def test_order_in_memory_stays():
    net = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    strides = [p.stride() for p in net.parameters()]
    weights = [p.detach().clone() for p in net.parameters()]
    LayerGroups.from_model(net)
    assert [p.stride() for p in net.parameters()] == strides
    assert all(torch.equal(p, w) for p, w in zip(net.parameters(), weights, strict=True))


def test_parameters_that_share_memory_with_themselves_become_plain_ones():
    net = nn.ParameterList(
        [nn.Parameter(torch.arange(3.0).expand(2, 3)), nn.Parameter(torch.eye(4)[::2, 1:])]
    )
    weights = [p.detach().clone() for p in net]
    LayerGroups.from_model(net)
    assert [p.stride() for p in net] == [(3, 1), (3, 1)]
    assert all(torch.equal(p, w) for p, w in zip(net, weights, strict=True))


def test_flat_is_the_inverse_of_views():
    groups = LayerGroups.from_model(model())
    assert torch.equal(groups.flat(groups.views(groups.vector)), groups.vector)


def test_each_group_has_its_own_squares_and_factors():
    groups = LayerGroups.from_model(model())
    ones = groups.flat([torch.ones_like(v) for v in groups.views(groups.vector)])
    assert groups.names == ("0[1/2]", "0[2/2]", "1[1/2]", "1[2/2]", "2[1/2]", "2[2/2]")
    groups.scale_(ones, [1.0, 1.0, 2.0, 2.0, 3.0, 3.0])  # of a weight and of its bias
    assert groups.squares(ones) == [16.0, 4.0, 64.0, 16.0, 108.0, 27.0]


def mixed():
    """Single, double and half precision, and complex numbers, in five layers."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(4, 4),
        nn.Linear(4, 4).double(),
        nn.Linear(4, 4).bfloat16(),
        nn.Linear(4, 4, dtype=torch.complex64),
        nn.Linear(4, 2),
    )


def test_parameters_of_several_types_lie_in_one_vector_a_type():
    net = mixed()
    before = [p.detach().clone() for p in net.parameters()]
    groups = LayerGroups.from_model(net)
    assert [part.dtype for part in groups.vector.parts] == [torch.float32, torch.float64, torch.bfloat16]
    assert groups.lengths == [[32, 0, 0, 0, 48, 32], [0, 24, 0, 0, 0, 0], [0, 0, 32, 32, 0, 0]]
    assert groups.names == ("0", "1", "2[1/2]", "2[2/2]", "3", "4")
    assert groups.sizes == [32, 24, 32, 32, 48, 32]
    assert all(torch.equal(p, b) for p, b in zip(net.parameters(), before, strict=True))
    groups.vector.mul_(2)
    assert all(torch.equal(p, 2 * b) for p, b in zip(net.parameters(), before, strict=True))
    doubled = groups.flat([2 * p.detach() for p in net.parameters()])
    groups.vector.add_(doubled, alpha=-0.5)
    assert all(not p.any() for p in net.parameters())


def test_groups_of_several_types_have_squares_factors_and_samples_as_those_of_one():
    net = mixed()
    groups = LayerGroups.from_model(net)
    weights = [
        layer.weight.detach().abs().square().sum() + layer.bias.detach().abs().square().sum() for layer in net
    ]
    squares = groups.squares(groups.vector)
    of_layers = [*squares[:2], squares[2] + squares[3], *squares[4:]]
    assert of_layers == pytest.approx([float(w) for w in weights], rel=2e-2)  # half precision is rounded
    sample = Sample(groups)
    found = sample(groups.vector)
    assert found.dtype == torch.float64
    assert [gram[0][0] for gram in sample.grams([found])] == pytest.approx(squares)
    groups.scale_(groups.vector, [1.0, 2.0, 1.0, 1.0, 1.0, 0.0])
    assert groups.squares(groups.vector)[5] == 0
    assert groups.squares(groups.vector)[1] == pytest.approx(4 * float(weights[1]))


def test_of_rows_a_complex_parameter_is_its_own_in_each():
    net = nn.Sequential(nn.Linear(3, 2, dtype=torch.complex128), nn.Linear(2, 2).double())
    groups = LayerGroups.from_model(net)
    rows = torch.stack([groups.vector, 2 * groups.vector])
    for of_all, own in zip(groups.views(rows), net.parameters(), strict=True):
        assert torch.equal(of_all[1], 2 * own)


def test_half_precision_squares_do_not_overflow():
    net = nn.Linear(100, 100).half()
    nn.init.constant_(net.weight, 10)
    groups = LayerGroups.from_model(net)
    assert sum(groups.squares(groups.vector)) == pytest.approx(1e6, rel=1e-3)


def test_two_parameters_of_one_memory_are_refused_and_one_parameter_of_two_layers_is_not():
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    net[1].weight.data = net[0].weight.data
    with pytest.raises(UserError, match=r"0\.weight and 1\.weight are two .* `1\.weight = 0\.weight`"):
        LayerGroups.from_model(net)
    net[1].weight = net[0].weight
    assert len(LayerGroups.from_model(net).views(torch.zeros(100))) == 3


def test_empty_parameters_are_as_good_as_any():
    lists = nn.ParameterList([torch.empty(0, 2)]), nn.ParameterList([torch.empty(0), torch.ones(2)])
    net = nn.Sequential(nn.Linear(3, 2), *lists)
    groups = LayerGroups.from_model(net)
    assert groups.in_place()
    assert groups.sizes == [16, 16, 0, 16]
    assert torch.equal(Sample(groups)(groups.vector), groups.vector)
    assert groups.squares(groups.vector)[2:] == [0.0, 2.0]


@pytest.mark.parametrize(("device", "apart"), [("cpu", 16), ("meta", 128)])  # "meta" stands for a GPU
def test_parameters_begin_where_the_devices_allocator_would_have_them_begin(device, apart):
    net = nn.Linear(3, 2, device=device)
    assert LayerGroups.from_model(net).sizes == [apart] * 2
    assert net.bias.storage_offset() == apart


def test_parameters_that_were_replaced_are_noticed():
    net = model()
    groups = LayerGroups.from_model(net)
    assert groups.holds(net)
    net[1].weight.data = net[1].weight.data.clone()
    assert not groups.in_place()
    assert not groups.holds(net)


def test_what_is_unfrozen_added_or_taken_away_is_noticed_and_what_is_frozen_stays():
    net = model()
    net[0].requires_grad_(False)
    groups = LayerGroups.from_model(net)
    net[1].requires_grad_(False)
    assert groups.holds(net)
    net[0].weight.requires_grad_(True)
    assert not groups.holds(net)
    groups = LayerGroups.from_model(net)
    net.append(nn.Linear(3, 1))
    assert groups.in_place()
    assert not groups.holds(net)
    groups = LayerGroups.from_model(net)
    del net[3]
    assert not groups.holds(net)


def test_a_small_model_is_sampled_whole():
    groups = LayerGroups.from_model(model())
    assert torch.equal(Sample(groups)(groups.vector), groups.vector)


@given(seed=st.integers(0, 20), width=st.sampled_from([300, 700]))
def test_inner_products_of_a_sample_are_near_those_of_all(seed, width):
    groups = LayerGroups.from_model(nn.Sequential(nn.Linear(width, width), nn.Linear(3, 3)))
    generator = torch.Generator().manual_seed(seed)
    common = torch.randn(len(groups.vector), generator=generator)
    other = common + torch.randn(len(groups.vector), generator=generator)
    sample = Sample(groups)
    grams = sample.grams([sample(common), sample(other)])
    parts = zip(common.split(groups.sizes), other.split(groups.sizes), grams, strict=True)
    for a, b, gram in parts:
        exact = torch.tensor([[a @ a, a @ b], [a @ b, b @ b]])
        torch.testing.assert_close(torch.tensor(gram), exact, rtol=0.1, atol=0)


def test_a_sample_depends_on_the_sizes_alone():
    one, other = (LayerGroups.from_model(nn.Linear(200, 200)) for _ in range(2))
    torch.manual_seed(5)
    values = torch.randn(len(one.vector))
    assert torch.equal(Sample(one)(values), Sample(other)(values))
