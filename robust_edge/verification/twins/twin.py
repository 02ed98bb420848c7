"""Differentiable twins: an artifact's own arithmetic in torch, so that gradients are those of the artifact itself."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from robust_edge_runtimes.core.batches import filled_positions
from robust_edge_runtimes.core.errors import RobustEdgeError

CHECKPOINT = "the checkpoint, for want of a twin"


class TwinError(RobustEdgeError):
    """The artifact holds something that cannot be differentiated here."""

    exit_code = 3


@dataclasses.dataclass(frozen=True, eq=False)
class Differentiable:
    """A network in torch that computes what an artifact computes.

    Attributes:
        network: raw pixels to logits, in evaluation mode, on the CPU; no parameter requires a gradient.
        made_from: what it was read from, in words for the verdict.
    """

    network: nn.Module
    made_from: str


class FixedBatch(nn.Module):
    """A network that takes exactly `size` images, given any number: the last call repeats its last image."""

    def __init__(self, network: nn.Module, size: int) -> None:
        super().__init__()
        self.network = network
        self.size = size

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) to (N, K)."""
        filled = images[torch.from_numpy(filled_positions(len(images), self.size))]
        return torch.cat([self.network(part) for part in filled.split(self.size)])[: len(images)]
