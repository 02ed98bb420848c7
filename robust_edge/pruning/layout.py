"""Properties of a network that sparsity sets need beside its weights: the order of its layers, and their cost."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from robust_edge_exporters.weight_uses import WeightUse, weight_uses


@dataclasses.dataclass(frozen=True)
class Layout:
    """The prunable layers in the order of their first use."""

    layers: tuple[WeightUse, ...]

    @property
    def depth(self) -> tuple[str, ...]:
        """Names of the weights in the order of the forward pass."""
        return tuple(layer.name for layer in self.layers)

    @property
    def stem(self) -> str:
        """The layer that reads the image."""
        return self.layers[0].name

    @property
    def classifier(self) -> str:
        """The layer that writes the logits."""
        return self.layers[-1].name

    @property
    def grouped(self) -> frozenset[str]:
        """Convolutions with several groups, including depthwise ones."""
        return frozenset(layer.name for layer in self.layers if layer.groups > 1)

    @property
    def depthwise(self) -> frozenset[str]:
        """Convolutions whose filters read one input channel each."""
        return frozenset(layer.name for layer in self.layers if layer.depthwise)

    @property
    def inputs_first(self) -> frozenset[str]:
        """Layers whose first axis runs along the inputs, not the outputs: transposed convolutions, and `x @ weight`."""
        return frozenset(layer.name for layer in self.layers if layer.input_axis == 0)

    @property
    def macs_per_weight(self) -> dict[str, int]:
        """Multiply-accumulates per weight and image, by layer."""
        return {layer.name: layer.macs_per_weight for layer in self.layers}

    def macs(self, support: Mapping[str, Tensor]) -> int:
        """Multiply-accumulates per image of the weights that are non-zero (or True)."""
        costs = self.macs_per_weight
        return sum(costs[name] * int(torch.count_nonzero(kept)) for name, kept in support.items())


def layout_of(model: nn.Module, shape: tuple[int, ...]) -> Layout:
    """The layout of a network, recorded in one forward pass.

    Args:
        model: left as it was.
        shape: (C, H, W).
    """
    return Layout(weight_uses(model, shape).uses)
