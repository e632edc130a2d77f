"""Full-batch regression of a smooth surface: no gradient noise, where extrapolation has most to gain."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from hybrid_sweep.errors import Settings, UserError, unknown_name

Batch = tuple[Tensor, Tensor]
SPLITS = {"train": 0, "val": 1, "test": 2}


class Regression:
    """A perceptron with tanh learns sin(3x)·cos(3y) + xy/2 on [-1, 1]² from every point in every step.

    Adam, its learning rate falling to 0 along a cosine over the logical steps; the loss is the mean squared
    error. The points are drawn once, whatever the seed, which sets the initial weights.

    Args:
        points: points of each split.
        width: units of each of the two hidden layers.
        lr: learning rate of Adam at the start.
        steps: logical steps of a run.
        device: `cpu`, `cuda` or `cuda:N`, where model and data live.

    Raises:
        UserError: a value out of range, or a device that is not there.
    """

    quality = "loss_ratio"

    def __init__(
        self, points: int = 1024, width: int = 64, lr: float = 0.01, steps: int = 5000, device: str = "cpu"
    ) -> None:
        self.recipe = Recipe(points=points, width=width, lr=lr, steps=steps, device=device)
        self.steps = self.recipe.steps
        gpus = torch.cuda.device_count()
        if device != "cpu" and int(device.partition(":")[2] or 0) >= gpus:
            raise UserError(
                f"device={device!r} is not available: torch sees {gpus} CUDA devices; use device=cpu"
            )
        self._splits = {name: self._points(seed) for name, seed in SPLITS.items()}

    def build_model(self, seed: int) -> nn.Module:
        """Return the model with torch's default initial weights, the same ones for the same seed."""
        width = self.recipe.width
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            model = nn.Sequential(
                nn.Linear(2, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 1)
            )
        return model.to(self.recipe.device)

    def build_optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """Return Adam."""
        return torch.optim.Adam(model.parameters(), lr=self.recipe.lr)

    def build_scheduler(self, optimizer: torch.optim.Optimizer) -> CosineAnnealingLR:
        """Return the cosine that ends at 0 with the last logical step."""
        return CosineAnnealingLR(optimizer, self.steps)

    def batch(self, seed: int, step: int) -> Batch:
        """Return all points (points, 2) and their values (points, 1), at every step."""
        return self._splits["train"]

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the mean squared error."""
        inputs, values = batch
        return F.mse_loss(model(inputs), values)

    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        """Return mean squared error `loss` on `val` or `test`.

        Raises:
            UserError: another split.
        """
        if split not in ("val", "test"):
            raise unknown_name("split", split, ["val", "test"])
        with torch.no_grad():
            return {"loss": float(self.loss(model, self._splits[split]))}

    def _points(self, seed: int) -> Batch:
        generator = torch.Generator().manual_seed(seed)
        inputs = 2 * torch.rand(self.recipe.points, 2, generator=generator) - 1
        x, y = inputs.unbind(1)
        values = (torch.sin(3 * x) * torch.cos(3 * y) + x * y / 2).unsqueeze(1)
        return inputs.to(self.recipe.device), values.to(self.recipe.device)


class Recipe(Settings):
    """The values that `Regression` allows."""

    points: int = Field(ge=1)
    width: int = Field(ge=1)
    lr: float = Field(gt=0)
    steps: int = Field(ge=1)
    device: str = Field(pattern=r"^(cpu|cuda(:\d+)?)$")
