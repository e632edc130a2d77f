"""A user's workload that trains in milliseconds, with troubles that begin after its first jump."""

import os
import sys
from threading import Lock

import torch
import torch.nn.functional as F
from torch import nn

torch.set_num_threads(1)


class BadShard(BaseException):
    """An error that neither pickles nor is a common exception, of a file whose name is no UTF-8."""

    def __init__(self, path, row):
        super().__init__(f"\x1b[31mshard\x1b[0m {path}, row {row}")
        self.lock = Lock()


class Toy:
    """Linear regression on four inputs.

    `troubles` says what happens after a first jump of so many steps: {20: "raise", 30: "nan", 40: "die"};
    under 0 it happens from the start.
    """

    steps = 120

    def __init__(self, troubles=None, dropout=0.0, norm=False, quality="loss_ratio"):
        self.troubles, self.dropout, self.norm = troubles or {}, dropout, norm
        self.quality = quality

    def build_model(self, seed):
        torch.manual_seed(seed)
        self.last, self.trouble = 0, self.troubles.get(0)
        layers = [nn.Linear(4, 8), *([nn.BatchNorm1d(8)] if self.norm else []), nn.Dropout(self.dropout)]
        return nn.Sequential(*layers, nn.Linear(8, 1))

    def build_optimizer(self, model):
        return torch.optim.SGD(model.parameters(), lr=0.005)

    def batch(self, seed, step):
        jump = step - self.last - 1  # the batches of predicted steps are not loaded
        self.last = step
        self.trouble = self.trouble or self.troubles.get(jump)
        return self.draw(1000 * seed + step)

    def loss(self, model, batch):
        x, y = batch
        if self.trouble == "raise":
            raise RuntimeError("the toy\nis broken")
        if self.trouble == "own":
            raise BadShard("caf\udce9", 7)
        if self.trouble == "exit":
            sys.exit(3)
        if self.trouble == "die":
            os._exit(1)
        return F.mse_loss(model(x), y * float("nan") if self.trouble == "nan" else y)

    def evaluate(self, model, split):
        model.eval()
        with torch.no_grad():
            x, y = self.draw({"val": 7_000_000, "test": 8_000_000}[split])
            loss = F.mse_loss(model(x), y).item()
        model.train()
        return {"loss": loss, "accuracy": 1 / (1 + loss)}

    def draw(self, seed):
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(32, 4, generator=generator)
        return x, x.sum(1, keepdim=True) + 3 + 0.3 * torch.randn(32, 1, generator=generator)
