"""The original's perceptron: architecture, data order, random state, evaluation, refused values."""

from __future__ import annotations

import gzip
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from hybrid_sweep.errors import UserError
from trainables import digits
from trainables.digits import PIXELS
from trainables.mnist_mlp import MnistMlp
from trainables.regression import Regression


@pytest.fixture(scope="module")
def workload() -> MnistMlp:
    return MnistMlp()


def weights(model: nn.Module) -> torch.Tensor:
    return nn.utils.parameters_to_vector(model.parameters()).detach()


def test_it_is_the_seeds_model_and_recipe(workload: MnistMlp) -> None:
    model = workload.build_model(0)
    assert [tuple(p.shape) for p in model.parameters()] == [
        *[(256, 784), (256,)],
        *[(128, 256), (128,)],
        *[(10, 128), (10,)],
    ]
    assert weights(model).numel() == 235_146
    optimizer = workload.build_optimizer(model)
    assert isinstance(optimizer, torch.optim.SGD)
    assert (optimizer.defaults["lr"], optimizer.defaults["momentum"]) == (0.01, 0.0)
    assert (workload.steps, workload.quality) == (2345, "loss_ratio")


def test_keywords_reach_the_optimizer_and_the_batch() -> None:
    workload = MnistMlp(lr=0.5, momentum=0.9, batch_size=7, steps=3)
    optimizer = workload.build_optimizer(workload.build_model(0))
    assert (optimizer.defaults["lr"], optimizer.defaults["momentum"]) == (0.5, 0.9)
    assert workload.batch(0, 1)[0].shape == (7, 784)
    assert workload.steps == 3


def test_a_seed_gives_the_weights_whatever_the_global_state(workload: MnistMlp) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = weights(workload.build_model(5))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(weights(workload.build_model(5)), first)
    assert not torch.equal(weights(workload.build_model(6)), first)


def test_a_batch_depends_on_seed_and_step_alone(workload: MnistMlp) -> None:
    asked = [(0, 1), (0, 40), (1, 1), (0, 2345), (0, 2)]
    forth = {key: workload.batch(*key) for key in asked}
    other = pickle.loads(pickle.dumps(MnistMlp()))
    for key in reversed(asked):
        for a, b in zip(forth[key], other.batch(*key), strict=True):
            assert torch.equal(a, b)
    assert not torch.equal(forth[0, 1][1], forth[1, 1][1])


def test_every_epoch_shows_each_image_at_most_once_in_a_new_order(workload: MnistMlp) -> None:
    batches = 4000 // 128
    epochs = [
        torch.cat([workload.batch(3, epoch * batches + step)[0] for step in range(1, batches + 1)])
        for epoch in range(2)
    ]
    for epoch in epochs:
        assert epoch.shape == (batches * 128, 784)
        assert len(epoch.unique(dim=0)) == len(epoch)
    assert not torch.equal(epochs[0], epochs[1])


def test_inputs_are_standardised_by_the_training_split(workload: MnistMlp) -> None:
    everything = MnistMlp(batch_size=4000)
    inputs, labels = everything.batch(0, 1)
    assert inputs.dtype == torch.float32
    assert labels.dtype == torch.int64
    assert abs(inputs.double().mean().item()) < 1e-5
    assert inputs.double().std().item() == pytest.approx(1, abs=1e-5)


def test_the_bundled_split_is_stratified_fixed_and_disjoint() -> None:
    splits, again = digits.load("bundled"), digits.load("bundled")
    counts = {name: np.bincount(labels).tolist() for name, (_, labels) in splits.items()}
    assert counts == {"train": [400] * 10, "val": [50] * 10, "test": [50] * 10}
    everything = np.concatenate([images for images, _ in splits.values()])
    assert len(np.unique(everything, axis=0)) == 5000
    for name, (images, labels) in splits.items():
        np.testing.assert_array_equal(images, again[name][0])
        np.testing.assert_array_equal(labels, again[name][1])


def test_an_untrained_even_handed_model_scores_log_ten(workload: MnistMlp) -> None:
    model = workload.build_model(0)
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    for split in ("val", "test"):
        result = workload.evaluate(model, split)
        assert result == {"loss": pytest.approx(math.log(10)), "accuracy": pytest.approx(0.1)}


@pytest.mark.parametrize("training", [True, False])
def test_evaluation_is_in_eval_mode_without_gradients_and_restores_the_mode(
    workload: MnistMlp, training: bool
) -> None:
    seen: list[tuple[bool, bool]] = []

    class Spy(nn.Module):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            seen.append((self.training, torch.is_grad_enabled()))
            return inputs[:, :10]

    spy = Spy().train(training)
    workload.evaluate(spy, "val")
    assert set(seen) == {(False, False)}
    assert spy.training is training


def test_training_lowers_the_held_out_loss() -> None:
    workload = MnistMlp(lr=0.1)
    model = workload.build_model(0)
    optimizer = workload.build_optimizer(model)
    before = workload.evaluate(model, "val")
    for step in range(1, 101):
        optimizer.zero_grad()
        workload.loss(model, workload.batch(0, step)).backward()
        optimizer.step()
    after = workload.evaluate(model, "val")
    assert after["loss"] < 0.7 * before["loss"]
    assert after["accuracy"] > 0.7


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("data", ""),
        ("batch_size", 0),
        ("batch_size", "many"),
        ("lr", 0.0),
        ("lr", math.nan),
        ("lr", math.inf),
        ("steps", 0),
        ("steps", 2.5),
        ("momentum", 1.0),
        ("device", "tpu"),
    ],
)
def test_nonsense_is_refused_by_field_and_value(field: str, value: Any) -> None:
    with pytest.raises(UserError, match=f"{field}={value!r} is not allowed"):
        MnistMlp(**{field: value})


def test_a_batch_larger_than_the_data_is_refused() -> None:
    with pytest.raises(UserError, match=r"batch_size=4001.*4000 images"):
        MnistMlp(batch_size=4001).batch(0, 1)


def test_an_unknown_split_names_the_known_ones(workload: MnistMlp) -> None:
    with pytest.raises(UserError, match=r"unknown split 'train'.*val, test"):
        workload.evaluate(nn.Identity(), "train")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(UserError, match="device='cuda' is not available"):
        MnistMlp(device="cuda")


@pytest.mark.parametrize("make", [MnistMlp, Regression])
@pytest.mark.parametrize("device", ["cuda:2", "cuda:300"])
def test_a_device_beyond_those_that_are_there_is_refused(
    monkeypatch: pytest.MonkeyPatch, make: Any, device: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UserError, match=f"device='{device}' is not available: torch sees 2 CUDA devices"):
        make(device=device)


def test_the_checksum_is_of_the_data_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYBRID_SWEEP_DATA", str(tmp_path))
    for name, first in (("one", 0), ("same", 0), ("other", 1)):
        (tmp_path / name).mkdir()
        for part in ("train", "t10k"):
            images = np.arange(24 * PIXELS, dtype=np.uint64).astype(np.uint8).reshape(24, 28, 28)
            images[0, 0, 0] = first
            labels = (np.arange(24) % 10).astype(np.uint8)
            for array, stem in ((images, "images-idx3"), (labels, "labels-idx1")):
                sizes = np.array(array.shape, ">u4").tobytes()
                content = bytes((0, 0, 8, array.ndim)) + sizes + array.tobytes()
                compressed = name == "same"
                path = tmp_path / name / f"{part}-{stem}-ubyte{'.gz' * compressed}"
                path.write_bytes(gzip.compress(content) if compressed else content)
    one, same, other = (MnistMlp(data=name, batch_size=4) for name in ("one", "same", "other"))
    assert one.data_checksum() == same.data_checksum() == MnistMlp(data="one", lr=0.5).data_checksum()
    assert one.data_checksum() != other.data_checksum()
