"""A recipe that few controls can have: a bag of embeddings with sparse gradients."""

import torch
import torch.nn.functional as F
from torch import nn


class Sparse:
    """Regression on the mean of four of fifty numbers."""

    steps, quality = 40, "loss_ratio"

    def build_model(self, seed):
        torch.manual_seed(seed)
        return nn.EmbeddingBag(50, 1, sparse=True, mode="mean")

    def build_optimizer(self, model):
        return torch.optim.SparseAdam(model.parameters(), lr=0.01)

    def batch(self, seed, step):
        generator = torch.Generator().manual_seed(1000 * seed + step)
        rows = torch.randint(50, (32, 4), generator=generator)
        return rows, (rows % 7).float().mean(1, keepdim=True)

    def loss(self, model, batch):
        return F.mse_loss(model(batch[0]), batch[1])

    def evaluate(self, model, split):
        with torch.no_grad():
            return {"loss": self.loss(model, self.batch({"val": 7000, "test": 8000}[split], 1)).item()}
