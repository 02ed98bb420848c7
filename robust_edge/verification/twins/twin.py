"""Differentiable twins: networks in torch that compute what an artifact computes, to obtain its gradients."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from robust_edge_runtimes.core.batches import filled_positions
from robust_edge_runtimes.core.errors import RobustEdgeError
from robust_edge_runtimes.core.limits import TimeLimit

CHECKPOINT = "the checkpoint, for want of a twin"


class TwinError(RobustEdgeError):
    """The artifact contains an operation that robust-edge cannot differentiate."""

    exit_code = 3


@dataclasses.dataclass(frozen=True, eq=False)
class Differentiable:
    """A network in torch that computes what an artifact computes.

    Attributes:
        network: raw pixels to logits, in evaluation mode, on the CPU; no parameter requires a gradient.
        made_from: the source of the network, as a phrase for the verdict.
        exact: whether the artifact computes the same on every machine, so that their logits differ in nothing.
        rounding: operators in it whose gradient is zero.
    """

    network: nn.Module
    made_from: str
    exact: bool = False
    rounding: tuple[str, ...] = ()


class FixedBatch(nn.Module):
    """Run a network that takes exactly `size` images on any number; the last batch is filled with its last image."""

    def __init__(self, network: nn.Module, size: int) -> None:
        super().__init__()
        self.network = network
        self.size = size

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) to (N, K)."""
        filled = images[torch.from_numpy(filled_positions(len(images), self.size))]
        return torch.cat([self.network(part) for part in filled.split(self.size)])[: len(images)]


class InTime(nn.Module):
    """Run a network under a time limit: one made from TorchScript may loop for ever on some images."""

    def __init__(self, network: nn.Module, limit: TimeLimit) -> None:
        super().__init__()
        self.network = network
        self.limit = limit

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) to (N, K)."""
        with self.limit.call(len(images)):
            logits: Tensor = self.network(images)
        return logits
