"""What can be trained together is found out by trying; what does not fit or pay is trained one at a time."""

from types import SimpleNamespace

import numpy as np
import pytest
import schedulefree
import torch
import torch.nn.functional as F
from support.toy import Toy
from torch import nn, optim

from hybrid_sweep.measure import batch_size as module
from hybrid_sweep.measure.batch_size import (
    BatchSize,
    bytes_of_member,
    free_bytes,
    fused_ratio,
    obstacle,
    packing,
)


class Own(Toy):
    """The toy with parts of one's own."""

    def __init__(self, optimizer=optim.SGD, loss=None, change=None, batch=None, **keywords):
        super().__init__(**keywords)
        self.optimizer, self.own_loss, self.change, self.own_batch = optimizer, loss, change, batch

    def build_model(self, seed):
        model = super().build_model(seed)
        return self.change(model) if self.change else model

    def build_optimizer(self, model):
        return self.optimizer(model.parameters(), lr=0.01)

    def batch(self, seed, step):
        batch = super().batch(seed, step)
        return self.own_batch(batch, step) if self.own_batch else batch

    def loss(self, model, batch):
        return self.own_loss(model, batch) if self.own_loss else super().loss(model, batch)


class Counting(nn.Module):
    """A buffer that is replaced and not written into."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner
        self.register_buffer("mean", torch.zeros(4))

    def forward(self, x):
        self.mean = 0.9 * self.mean + 0.1 * x.detach().mean(0)
        return self.inner(x)


def plain_loss(model, batch):
    return F.mse_loss(model(batch[0]), batch[1])


def remembering(model, batch, calls=[]):  # noqa: B006
    calls.append(batch)
    return plain_loss(model, batch) * len(calls)


def data_dependent(model, batch):
    loss = plain_loss(model, batch)
    return loss * 2 if loss > 1e9 else loss


def with_numpy(model, batch):
    return F.mse_loss(model(batch[0] + 0.1 * np.random.randn()), batch[1])


def schedule_free(parameters, lr):
    optimizer = schedulefree.SGDScheduleFree(parameters, lr=lr)
    optimizer.train()
    return optimizer


@pytest.mark.parametrize(
    "workload",
    [
        Toy(),
        Toy(norm=True),
        *(Own(name) for name in (optim.Adam, optim.RMSprop, optim.Adafactor, optim.Rprop, schedule_free)),
        Own(change=lambda model: model.double(), batch=lambda batch, step: [part.double() for part in batch]),
    ],
)
def test_what_can_be_trained_together(workload):
    assert obstacle(workload) == ""


@pytest.mark.parametrize(
    ("workload", "words"),
    [
        (Toy(dropout=0.3), "draws random numbers"),
        (Own(loss=with_numpy), "draws random numbers"),
        (Own(optim.LBFGS), "LBFGS evaluates its loss more than once a step"),
        (Own(loss=data_dependent), "cannot be computed for many models at once (RuntimeError: vmap:"),
        (Own(change=Counting), "mean"),
        (Own(lambda parameters, lr: optim.SGD(list(parameters)[:2], lr=lr)), "every trainable parameter"),
        (Own(batch=lambda batch, step: [part[: 8 + step] for part in batch]), "its batches differ in shape"),
        (Own(loss=plain_loss, batch=lambda batch, step: (*batch, f"{step}")), "something that is no tensor"),
        (Own(loss=remembering), "together, a loss of step 1 is"),
    ],
)
def test_what_cannot_is_told_in_a_clause(workload, words):
    why = obstacle(workload)
    assert words in why
    assert "\n" not in why
    chosen = packing(workload, 8, 60)
    assert chosen.size == 1
    assert chosen.why.startswith(f"trials are trained one at a time: {why[:20]}")


class TestSize:
    @pytest.fixture(autouse=True)
    def memory(self, monkeypatch):
        """Room for so many members: `memory(5)`."""
        monkeypatch.setattr(module, "bytes_of_member", lambda workload: 100)

        def room(members):
            monkeypatch.setattr(module, "free_bytes", lambda workload: 100.0 * members)

        room(1000)
        return room

    @pytest.fixture
    def ratios(self, monkeypatch):
        """Times of fused steps by size, over those of single ones."""

        def measured(ratios):
            monkeypatch.setattr(module, "fused_ratio", lambda workload, size: ratios[size])

        return measured

    def test_as_asked(self):
        assert packing(Toy(), 12, 60).size == 12
        assert packing(Toy(), 12, 60).why == "a worker trains 12 trials at once"

    def test_one_is_no_pack_and_looks_at_nothing(self):
        assert packing(None, 1, 60) == BatchSize(size=1)
        alone = BatchSize(size=1, why="trials are trained one at a time: there is a worker for each")
        assert packing(None, 8, 1) == packing(None, "auto", 1) == alone

    def test_no_more_than_there_are_to_train(self):
        assert packing(Toy(), 64, 10).size == 10

    def test_no_more_than_memory_holds(self, memory):
        memory(5)
        short = packing(Toy(), 12, 60)
        assert short == BatchSize(
            size=5, why="a worker trains 5 trials at once, for memory has no room for 12"
        )
        assert packing(Toy(), 12, 60, share=0.5).size == 2
        memory(1.9)
        assert packing(Toy(), 12, 60).why == "trials are trained one at a time: memory has no room for two"

    def test_auto_takes_the_fastest(self, ratios):
        ratios({4: 0.5, 16: 0.2, 60: 0.3})
        chosen = packing(Toy(), "auto", 60)
        assert chosen.size == 16
        assert "4 in 0.50, 16 in 0.20, 60 in 0.30" in chosen.why

    def test_auto_does_not_pack_where_it_does_not_pay(self, ratios):
        ratios({4: 1.3, 16: 0.95, 64: 1.0})
        chosen = packing(Toy(), "auto", 64)
        assert chosen.size == 1
        assert "does not pay" in chosen.why

    def test_auto_keeps_within_memory(self, ratios, memory):
        memory(10)
        ratios({4: 0.5, 10: 0.2})
        assert packing(Toy(), "auto", 60).size == 10


def test_memory_of_a_member_grows_with_weights_moments_and_batch():
    class Large(Own):
        def build_model(self, seed):
            super().build_model(seed)
            return nn.Sequential(nn.Linear(4, 100_000), nn.ReLU(), nn.Linear(100_000, 1))

    sgd, adam = bytes_of_member(Large()), bytes_of_member(Large(optim.Adam))
    weights = 4 * 600_001
    assert sgd > 8 * weights + 32 * 100_000 * 4  # activations of 32 samples
    assert adam - sgd == pytest.approx(4 * weights, rel=1e-3)


class Gpu:
    """Stands in for the second GPU of a machine: a step takes a second to launch, and ten to be done."""

    def __init__(self, monkeypatch):
        self.host = self.busy_until = 0.0
        monkeypatch.setattr(module, "start", lambda workload, seed: self)
        monkeypatch.setattr(module, "FusedStep", lambda size: lambda steps: self.launch(20.0 * len(steps)))
        monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: self.host))
        monkeypatch.setattr(torch.cuda, "synchronize", self.wait)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (int(device[-1]) * 1000, 5000))
        self.parameters = [SimpleNamespace(is_cuda=True, device="cuda:1")]

    def launch(self, seconds):
        self.host += 1.0
        self.busy_until = max(self.host, self.busy_until) + seconds
        return self

    def wait(self, device="cuda:0"):
        if device == "cuda:1":
            self.host = max(self.host, self.busy_until)

    def __call__(self, batch):
        return self.launch(10.0)

    def __float__(self):
        self.wait("cuda:1")
        return 1.0


def test_on_a_gpu_the_work_is_timed_and_not_its_launch(monkeypatch):
    Gpu(monkeypatch)
    workload = SimpleNamespace(steps=100, batch=lambda seed, step: None)
    assert fused_ratio(workload, 4) == pytest.approx(2.0, rel=0.01)


def test_memory_is_looked_for_where_the_model_lives(monkeypatch):
    Gpu(monkeypatch)
    assert free_bytes(Toy()) == 1000


def test_many_small_models_take_less_time_than_as_many_single_steps():
    assert fused_ratio(Toy(), 48) < 0.8
