"""Normalisation inside the model: every artifact takes raw pixels, and ε has the same unit everywhere."""

# Without `from __future__ import annotations`: TorchScript cannot read annotations that are strings.
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class Normalized(nn.Module):
    """Applies `(x - mean) / std` per channel, then the network.

    Takes (N, C, H, W) float in [0, 1] and returns the output of the network.

    Attributes:
        spec: the ModelSpec that it was built from; None where it was put together otherwise.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.spec: Any = None
        self.network = network
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) raw pixels to (N, K) logits."""
        logits: Tensor = self.network((images - self.mean) / self.std)
        return logits
