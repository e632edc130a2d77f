"""What cannot be trained here is refused in one sentence before the first step."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from support.distributed import rank, refused
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import distribute_tensor, init_device_mesh
from torch.nn.parallel import DistributedDataParallel

from hybrid_sweep.trainer.supported import validate_supported
from hybrid_sweep.trainer.train_step import TrainStep


@pytest.fixture
def alone(tmp_path):
    """A process group of this process alone."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_wrappers_are_refused_and_the_model_inside_them_is_not(alone):
    net = nn.Linear(2, 1)
    said = refused(DistributedDataParallel(net))
    assert said.startswith(
        "the model is a DistributedDataParallel: distributed training is not supported yet"
    )
    assert "one process a run" in said
    assert refused(nn.DataParallel(net)).startswith("the model is a DataParallel")
    assert refused(nn.Sequential(nn.Linear(2, 2), nn.DataParallel(net))).startswith(
        "the module 1 is a DataPar"
    )
    validate_supported(net)


def test_sharded_parameters_are_refused(alone):
    mesh = init_device_mesh("cpu", (1,))
    net = nn.Linear(2, 1)
    net.weight = nn.Parameter(distribute_tensor(net.weight.detach(), mesh))
    assert "the parameter weight is a DTensor" in refused(net)
    assert "is a FSDPModule" in refused(fully_shard(nn.Linear(2, 1), mesh=mesh))


def test_each_of_two_processes_is_told_before_the_first_step(tmp_path):
    mp.spawn(rank, (str(tmp_path),), nprocs=2)
    for index in range(2):
        plain, wrapped = (tmp_path / f"said{index}").read_text(encoding="utf-8").splitlines()
        assert "this process is one of 2 of a process group" in plain
        assert wrapped.startswith("the model is a DistributedDataParallel")


def test_a_lazy_layer_is_refused_until_it_has_seen_a_batch():
    net = nn.Sequential(nn.Linear(2, 3), nn.LazyLinear(1))
    said = refused(net)
    assert "the parameter 1.weight of a lazy layer has no shape yet: pass a batch through the model" in said
    net(torch.zeros(1, 2))
    TrainStep(net, torch.optim.SGD(net.parameters(), lr=0.1), lambda model, batch: model(batch).sum())
