"""Models with lazy layers are trained as if their layers had been given their shapes."""

import pytest
import torch
from support.toy import Toy
from torch import nn

from hybrid_sweep.errors import UserError
from hybrid_sweep.measure.model import built_model
from hybrid_sweep.measure.reference import reference_run, start


class Lazy(Toy):
    def build_model(self, seed):
        super().build_model(seed)
        torch.manual_seed(seed)
        return nn.Sequential(nn.LazyLinear(8), nn.LazyBatchNorm1d(), nn.Dropout(0.5), nn.LazyLinear(1))


class Spare(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net, self.unused = net, nn.LazyLinear(1)

    def forward(self, x):
        return self.net(x)


class Unused(Toy):
    def build_model(self, seed):
        return Spare(super().build_model(seed))


def test_lazy_layers_get_shapes_and_weights_of_the_seed_and_nothing_else_moves():
    torch.manual_seed(11)
    before = torch.get_rng_state()
    expected = Lazy().build_model(3).state_dict().keys()
    torch.set_rng_state(before)
    one = built_model(Lazy(), 3)
    drawn = torch.rand(3)
    torch.manual_seed(12)
    other = built_model(Lazy(), 3)
    assert one.state_dict().keys() == expected
    for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert all(module.training for module in one.modules())
    assert one[1].num_batches_tracked == 0
    assert not one[1].running_mean.any()
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.rand(3))  # as after build_model, which seeds them
    assert not torch.equal(one[0].weight, built_model(Lazy(), 4)[0].weight)


def test_a_model_without_them_sees_no_batch():
    class Strict(Toy):
        def batch(self, seed, step):
            raise AssertionError

    built_model(Strict(), 0)


def test_such_a_model_trains():
    reference = reference_run(Lazy(), 0, 60, 20)
    assert reference.val_loss[-1] < reference.val_loss[0]


def test_a_lazy_layer_that_no_batch_reaches_is_refused():
    with pytest.raises(UserError, match=r"the parameter unused\.weight of a lazy layer has no shape yet"):
        start(Unused(), 0)
