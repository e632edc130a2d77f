"""A small problem that trains in milliseconds, with everything that could tell two runs apart."""

import torch
import torch.nn.functional as F
from torch import nn

torch.set_num_threads(1)


class Problem:
    """Noisy regression on 6 inputs; `batch(step)` counts how often each step was loaded."""

    def __init__(self, seed=0, dropout=0.0, norm=False, lr=0.05, momentum=0.0):
        torch.manual_seed(seed)
        layers = [nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 1)]
        if norm:
            layers.insert(1, nn.BatchNorm1d(16))
        if dropout:
            layers.insert(-1, nn.Dropout(dropout))
        self.model = nn.Sequential(*layers)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=lr, momentum=momentum)
        self.loaded = []
        torch.manual_seed(seed + 1)

    def batch(self, step):
        self.loaded.append(step)
        generator = torch.Generator().manual_seed(step)
        x = torch.randn(32, 6, generator=generator)
        y = x.sum(1, keepdim=True).sin() + 0.05 * torch.randn(32, 1, generator=generator) + 2
        return x, y

    def loss(self, model, batch):
        x, y = batch
        return F.mse_loss(model(x), y)
