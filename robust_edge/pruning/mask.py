"""A fixed mask, and keeping the weights under it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


@torch.no_grad()
def hard_prune(weights: Mapping[str, nn.Parameter], support: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Zero the weights off the support and return the masks of what may still move.

    A mask holds positions, not values: a kept weight that is zero at this moment counts as kept and may grow.

    Returns:
        Layer name to a float mask of 0 and 1, shaped like the weight.
    """
    masks = {name: support[name].to(weight.dtype) for name, weight in weights.items()}
    apply_mask(weights, masks)
    return masks


@torch.no_grad()
def apply_mask(weights: Mapping[str, nn.Parameter], masks: Mapping[str, Tensor]) -> None:
    """Zero what the optimiser's momentum or weight decay has revived; to +0.0, whatever stood there."""
    for name, weight in weights.items():
        weight.masked_fill_(masks[name] == 0, 0.0)
