"""A fixed mask, and keeping the weights under it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


@torch.no_grad()
def hard_prune(weights: Mapping[str, nn.Parameter], target: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Set the weights to the projected ones and return the mask of what may still move.

    Returns:
        Layer name to a float mask of 0 and 1, shaped like the weight.
    """
    masks = {}
    for name, weight in weights.items():
        weight.copy_(target[name])
        masks[name] = (target[name] != 0).to(weight.dtype)
    return masks


@torch.no_grad()
def apply_mask(weights: Mapping[str, nn.Parameter], masks: Mapping[str, Tensor]) -> None:
    """Zero what the optimiser's momentum or weight decay has revived."""
    for name, weight in weights.items():
        weight.mul_(masks[name])
