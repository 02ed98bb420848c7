"""Differentiable twins: an artifact's own arithmetic in torch, so that its gradients are its own, no stand-in's."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable

import torch
from torch import Tensor, nn

from robust_edge_runtimes.core.bundle import Bundle
from robust_edge_runtimes.core.errors import RobustEdgeError

CHECKPOINT = "the checkpoint, for want of a twin"


class TwinError(RobustEdgeError):
    """The artifact holds something that cannot be differentiated here."""

    exit_code = 3


@dataclasses.dataclass(frozen=True, eq=False)
class Differentiable:
    """A network in torch that computes what an artifact computes.

    Attributes:
        network: raw pixels to logits, in evaluation mode, on the CPU, without parameters that want gradients.
        made_from: what it was read from, as a person would say it.
    """

    network: nn.Module
    made_from: str


TWINS = {
    "csr": "robust_edge.verification.csr_twin:csr_twin",
    "onnx": "robust_edge.verification.onnx_twin:onnx_twin",
    "onnx-cuda": "robust_edge.verification.onnx_twin:onnx_twin",
    "tensorrt": "robust_edge.verification.onnx_twin:onnx_twin",
}
"""Artifact format to the function that reads a twin from a bundle, resolved only when it is asked for."""


def has_twin(artifact_format: str) -> bool:
    """Whether the artifact itself can be made differentiable; otherwise only its checkpoint can stand in."""
    return artifact_format in TWINS


def twin_of(bundle: Bundle) -> Differentiable:
    """The twin of a bundle's artifact.

    Raises:
        TwinError: the format has none, or the artifact holds something that cannot be differentiated.
    """
    artifact = bundle.manifest.artifact
    if not has_twin(artifact.format):
        raise TwinError(f"artifacts of format {artifact.format!r} have no twin (those that do: {', '.join(TWINS)})")
    module, name = TWINS[artifact.format].split(":")
    build: Callable[[Bundle], Differentiable] = getattr(importlib.import_module(module), name)
    return build(bundle)


class FixedBatch(nn.Module):
    """A network that takes exactly `size` images, given any number: the last call repeats its last image."""

    def __init__(self, network: nn.Module, size: int) -> None:
        super().__init__()
        self.network = network
        self.size = size

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) to (N, K)."""
        missing = -len(images) % self.size
        filled = torch.cat([images, images[-1:].expand(missing, *images.shape[1:])]) if missing else images
        return torch.cat([self.network(part) for part in filled.split(self.size)])[: len(images)]
