"""Snapshot: everything that training changes comes back, as often as it is asked for."""

from collections import Counter

import numpy as np
import torch
from support.states import difference, travelled
from torch import nn

from hybrid_sweep.trainer.phases import Phase
from hybrid_sweep.trainer.snapshot import Snapshot, plain
from hybrid_sweep.trainer.state import Segment


class Ours:
    """An object of the package: its state is a copy already."""

    def __init__(self):
        self.values = [1.0]

    def state_dict(self):
        return {"values": list(self.values)}

    def load_state_dict(self, state):
        self.values = list(state["values"])


def parts():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2, gamma=0.5)
    return {"model": model, "optimizer": optimizer, "schedule": schedule}, {"ours": Ours()}


def train(torchs, ours, steps=3):
    for _ in range(steps):
        torchs["optimizer"].zero_grad()
        torchs["model"](torch.randn(8, 3)).square().mean().backward()
        torchs["optimizer"].step()
        torchs["schedule"].step()
        ours["ours"].values[0] += 1.0


def everything(torchs, ours):
    """State of all parts as one comparable text, random numbers included."""
    torch.set_printoptions(precision=17, threshold=10**6)
    states = [part.state_dict() for part in (*torchs.values(), *ours.values())]
    text = f"{states} {torch.get_rng_state().tolist()}"
    torch.set_printoptions(profile="default")
    return text


def test_every_part_comes_back_to_the_last_bit():
    torchs, ours = parts()
    train(torchs, ours)
    snapshot, then = Snapshot(torchs, ours), everything(torchs, ours)
    train(torchs, ours)
    assert everything(torchs, ours) != then
    snapshot.restore(torchs, ours)
    assert everything(torchs, ours) == then


def test_it_can_be_restored_again_and_training_repeats_itself():
    torchs, ours = parts()
    train(torchs, ours)
    snapshot = Snapshot(torchs, ours)
    ends = []
    for _ in range(2):
        train(torchs, ours)
        ends.append(everything(torchs, ours))
        snapshot.restore(torchs, ours)
    assert ends[0] == ends[1]


def addresses(snapshot):
    """Where in memory its tensors of model and optimizer lie."""
    states = snapshot.torchs["model"], *snapshot.torchs["optimizer"]["state"].values()
    return [value.data_ptr() for state in states for value in state.values()]


def test_one_that_replaces_another_lies_where_that_did_and_holds_what_is_now():
    torchs, ours = parts()
    train(torchs, ours)
    first = Snapshot(torchs, ours)
    lay = addresses(first)
    train(torchs, ours)
    second, then = Snapshot(torchs, ours, first), everything(torchs, ours)
    assert addresses(second) == lay
    train(torchs, ours)
    second.restore(torchs, ours)
    assert everything(torchs, ours) == then


def test_what_someone_else_may_have_is_never_written_over():
    torchs, ours = parts()
    train(torchs, ours)
    snapshot = Snapshot(torchs, ours)
    state = snapshot.state_dict()
    before = travelled(plain(state))
    for replaced in (snapshot, Snapshot.from_state(state)):
        train(torchs, ours)
        Snapshot(torchs, ours, replaced)
        assert difference(travelled(plain(state)), before) is None


def test_a_state_of_another_shape_or_type_takes_memory_of_its_own():
    torchs, ours = parts()
    kept = Snapshot(torchs, ours)
    torchs["model"][0].weight.data = torch.ones(5, 3)
    torchs["model"][0].bias.data = torch.ones(4, dtype=torch.double)
    torchs["model"][2].weight.data = torch.ones(4, 1).T
    torchs["model"].register_buffer("late", torch.zeros(2))
    found = Snapshot(torchs, ours, kept).torchs["model"]
    assert difference(dict(found), dict(torchs["model"].state_dict())) is None


def test_before_the_first_step_the_optimizer_is_empty_again():
    torchs, ours = parts()
    snapshot = Snapshot(torchs, ours)
    train(torchs, ours)
    snapshot.restore(torchs, ours)
    assert not torchs["optimizer"].state_dict()["state"]


def test_the_model_keeps_its_own_tensors():
    torchs, ours = parts()
    weight = torchs["model"][0].weight
    snapshot = Snapshot(torchs, ours)
    with torch.no_grad():
        weight.fill_(float("nan"))
    snapshot.restore(torchs, ours)
    assert torchs["model"][0].weight is weight
    assert torch.isfinite(weight).all()


def test_plain_data_is_what_a_reader_without_our_code_understands():
    rich = {"rows": [Segment("full", 20, 0)], Phase.FULL: Phase.WARMUP, "array": np.arange(3.0), "none": None}
    result = plain(rich)
    assert {name: type(value) for name, value in result.items()} == {
        "rows": list,
        "full": str,
        "array": torch.Tensor,
        "none": type(None),
    }
    assert type(result["rows"][0]) is tuple
    assert difference(travelled(result), result) is None


def test_a_schedule_keeps_its_own_containers():
    weight = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    torchs = {"schedule": torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 2, 4])}
    snapshot = Snapshot(torchs, {})
    snapshot.restore(torchs, {})
    assert torchs["schedule"].milestones == Counter([2, 2, 4])
    assert type(torchs["schedule"].milestones) is Counter


class Renewed(nn.Linear):
    """A layer that takes a state without a version for one of its early days, when weights were halves."""

    _version = 2

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, *args):
        if local_metadata.get("version", 1) < 2:
            state_dict[f"{prefix}weight"] *= 2
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)


def test_a_model_knows_the_version_of_its_state():
    torchs = {"model": nn.Sequential(Renewed(2, 2))}
    before = torchs["model"][0].weight.clone()
    snapshot = Snapshot(torchs, {})
    snapshot.restore(torchs, {})
    assert torch.equal(torchs["model"][0].weight, before)
    Snapshot.from_state(travelled(plain(snapshot.state_dict()))).restore(torchs, {})
    assert torch.equal(torchs["model"][0].weight, before)
