"""Properties of a network that sparsity sets need beside its weights: the order of its layers, and their cost."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from robust_edge.pruning.prunable import PRUNABLE


@dataclasses.dataclass(frozen=True)
class LayerUse:
    """The use of one prunable layer in the forward pass.

    Attributes:
        name: name of the weight.
        groups: groups of a convolution; 1 for a linear layer.
        macs_per_weight: multiply-accumulates per weight and image: the number of output positions of a convolution,
            1 for a linear layer.
    """

    name: str
    groups: int
    macs_per_weight: int


@dataclasses.dataclass(frozen=True)
class Layout:
    """The prunable layers in the order of their first use; unused layers come last, with cost 0."""

    layers: tuple[LayerUse, ...]

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
        return [layer.name for layer in self.layers if layer.macs_per_weight][-1]

    @property
    def grouped(self) -> frozenset[str]:
        """Convolutions with several groups, including depthwise ones."""
        return frozenset(layer.name for layer in self.layers if layer.groups > 1)

    @property
    def macs_per_weight(self) -> dict[str, int]:
        """Multiply-accumulates per weight and image, by layer."""
        return {layer.name: layer.macs_per_weight for layer in self.layers}

    def macs(self, support: Mapping[str, Tensor]) -> int:
        """Multiply-accumulates per image of the weights that are non-zero (or True)."""
        costs = self.macs_per_weight
        return sum(costs[name] * int(torch.count_nonzero(kept)) for name, kept in support.items())


def depthwise_layers(model: nn.Module) -> frozenset[str]:
    """Names of the weights of depthwise convolutions, whose filters read one input channel each."""
    return frozenset(
        f"{name}.weight"
        for name, layer in model.named_modules()
        if isinstance(layer, PRUNABLE) and not isinstance(layer, nn.Linear) and 1 < layer.groups == layer.in_channels
    )


@torch.no_grad()
def layout_of(model: nn.Module, shape: tuple[int, ...]) -> Layout:
    """The layout of a network, recorded in one forward pass.

    Args:
        model: left as it was.
        shape: (C, H, W).
    """
    positions: dict[nn.Module, int] = {}

    def record(layer: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        positions[layer] = positions.get(layer, 0) + output.numel() // len(layer.get_parameter("weight"))

    layers: dict[nn.Module, str] = {m: name for name, m in model.named_modules() if isinstance(m, PRUNABLE)}
    hooks = [layer.register_forward_hook(record) for layer in layers]
    modes = {module: module.training for module in model.modules()}
    parameter = next(model.parameters())
    try:
        model.eval()(torch.zeros(1, *shape, device=parameter.device, dtype=parameter.dtype))
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in modes.items():
            module.training = mode
    used = [*positions, *(layer for layer in layers if layer not in positions)]
    return Layout(
        tuple(
            LayerUse(f"{layers[layer]}.weight", int(getattr(layer, "groups", 1)), positions.get(layer, 0))
            for layer in used
        )
    )
