"""The prunable weights of a network, and their number."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from robust_edge_runtimes.core.manifest import LayerCount, Sparsity

PRUNABLE = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


def prunable_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Weights of convolutions and linear layers by name, in order of depth; no biases, no batch-norm."""
    layers = [name for name, module in model.named_modules() if isinstance(module, PRUNABLE)]
    return {f"{name}.weight": model.get_parameter(f"{name}.weight") for name in layers}


def sparsity_of(weights: Mapping[str, Tensor]) -> Sparsity:
    """Count the non-zero weights of the tensors themselves, not of masks."""
    layers = tuple(
        LayerCount(name, weight.numel(), int(torch.count_nonzero(weight))) for name, weight in weights.items()
    )
    return Sparsity.of_layers(layers)


def budget_of(weights: Mapping[str, Tensor], keep: float) -> int:
    """k, the number of weights that are kept: round(keep × all), at least 1."""
    return max(1, round(keep * sum(weight.numel() for weight in weights.values())))
