"""The seed's test model, a perceptron on handwritten digits: the file to copy for a workload of your own."""

from __future__ import annotations

import hashlib
import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from hybrid_sweep.errors import Settings, UserError, unknown_name
from trainables import digits

EVALUATION_BLOCK = 1000
Batch = tuple[Tensor, Tensor]


class MnistMlp:
    """235,146 parameters, ReLU, cross entropy, SGD (seed, Test configuration).

    Args:
        data: `bundled` (5,000 digits, no download), `mnist`, or a folder of IDX files within
            `$HYBRID_SWEEP_DATA`.
        batch_size: images a step; an epoch's last, smaller batch is left out.
        lr: learning rate of SGD.
        steps: logical steps of a run.
        momentum: momentum of SGD.
        device: `cpu`, `cuda` or `cuda:N`, where model and data live.

    Raises:
        UserError: a value out of range, or (at the first batch) data that is missing or damaged.
    """

    quality = "loss_ratio"

    def __init__(
        self,
        data: str = "bundled",
        batch_size: int = 128,
        lr: float = 0.01,
        steps: int = 2345,
        momentum: float = 0.0,
        device: str = "cpu",
    ) -> None:
        self.recipe = Recipe(
            data=data, batch_size=batch_size, lr=lr, steps=steps, momentum=momentum, device=device
        )
        self.steps = self.recipe.steps
        gpus = torch.cuda.device_count()
        if device != "cpu" and int(device.partition(":")[2] or 0) >= gpus:
            raise UserError(
                f"device={device!r} is not available: torch sees {gpus} CUDA devices; use device=cpu"
            )

    def build_model(self, seed: int) -> nn.Module:
        """Return the model with torch's default initial weights, the same ones for the same seed."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            model = nn.Sequential(
                nn.Linear(digits.PIXELS, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10)
            )
        return model.to(self.recipe.device)

    def build_optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """Return plain SGD, with momentum where the recipe has it."""
        return torch.optim.SGD(model.parameters(), lr=self.recipe.lr, momentum=self.recipe.momentum)

    def batch(self, seed: int, step: int) -> Batch:
        """Return inputs (batch_size, 784) and labels (batch_size,) of logical step `step`, counted from 1.

        Raises:
            UserError: the training split is smaller than a batch, or data is missing or damaged.
        """
        train = self._splits()["train"]
        size = self.recipe.batch_size
        count = len(train.labels)
        if size > count:
            raise UserError(f"batch_size={size} is not allowed: the training split has {count} images")
        epoch, position = divmod(step - 1, count // size)
        order = _epoch_order(count, seed, epoch, self.recipe.device)
        rows = order[position * size : (position + 1) * size]
        return train.inputs(train.pixels.index_select(0, rows)), train.labels.index_select(0, rows)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the mean cross entropy of the batch, in nats."""
        inputs, labels = batch
        return F.cross_entropy(model(inputs), labels)

    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        """Return mean `loss` (nats) and `accuracy` (share in [0, 1]) on `val` or `test`.

        Raises:
            UserError: another split, or data that is missing or damaged.
        """
        if split not in ("val", "test"):
            raise unknown_name("split", split, ["val", "test"])
        held_out = self._splits()[split]
        count = len(held_out.labels)
        totals = torch.zeros(2, dtype=torch.double, device=self.recipe.device)
        was_training = model.training
        model.eval()
        with torch.no_grad():
            for start in range(0, count, EVALUATION_BLOCK):
                block = slice(start, start + EVALUATION_BLOCK)
                totals += _block_totals(
                    model, held_out.inputs(held_out.pixels[block]), held_out.labels[block]
                )
        model.train(was_training)
        loss, accuracy = (totals / count).tolist()
        return {"loss": loss, "accuracy": accuracy}

    def data_checksum(self) -> str:
        """Return the SHA-256 of the uncompressed images and labels of all splits."""
        return _checksum(self.recipe.data, self.recipe.device)

    def _splits(self) -> dict[str, Split]:
        return _resident(self.recipe.data, self.recipe.device)


class Recipe(Settings):
    """The values that `MnistMlp` allows."""

    data: str = Field(min_length=1)
    batch_size: int = Field(ge=1)
    lr: float = Field(gt=0)
    steps: int = Field(ge=1)
    momentum: float = Field(ge=0, lt=1)
    device: str = Field(pattern=r"^(cpu|cuda(:\d+)?)$")


class Split(NamedTuple):
    """Images as bytes (n, 784), a quarter of the memory of floats and faster to gather; labels (n,)."""

    pixels: Tensor
    labels: Tensor
    shift: Tensor
    scale: float

    def inputs(self, pixels: Tensor) -> Tensor:
        """Return the pixels as floats, standardised by the training split, in one pass over the memory."""
        return torch.add(self.shift, pixels, alpha=self.scale)


@lru_cache(maxsize=2)
def _resident(data: str, device: str) -> dict[str, Split]:
    """Load a data set once a process."""
    splits = digits.load(data)
    train = splits["train"][0]
    mean = float(train.mean())
    std = math.sqrt(float(np.square(train, dtype=np.uint16).mean()) - mean**2)
    shift = torch.tensor(-mean / std, device=device)
    return {
        name: Split(
            torch.tensor(images, device=device), torch.tensor(labels, device=device).long(), shift, 1 / std
        )
        for name, (images, labels) in splits.items()
    }


@lru_cache(maxsize=2)
def _checksum(data: str, device: str) -> str:
    digest = hashlib.sha256()
    for split in _resident(data, device).values():
        for array in (split.pixels, split.labels):
            digest.update(f"{tuple(array.shape)}".encode())
            digest.update(array.cpu().numpy().tobytes())
    return digest.hexdigest()


@lru_cache(maxsize=4)
def _epoch_order(count: int, seed: int, epoch: int, device: str) -> Tensor:
    return torch.from_numpy(np.random.default_rng((seed, epoch)).permutation(count)).to(device)


def _block_totals(model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    """Return the sums of loss and of correct answers, in double precision."""
    scores = model(inputs)
    correct = (scores.argmax(1) == labels).sum()
    return torch.stack([F.cross_entropy(scores, labels, reduction="sum").double(), correct.double()])
