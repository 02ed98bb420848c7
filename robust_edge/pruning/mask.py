"""Fixed masks, and applying them to the weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


@torch.no_grad()
def hard_prune(weights: Mapping[str, nn.Parameter], support: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Zero the weights outside the support and return the masks of those that are still trained.

    A mask holds positions, not values: a kept weight that is zero now is still trained.

    Returns:
        Layer name to a float mask of 0 and 1, shaped like the weight.
    """
    masks = {name: support[name].to(weight.dtype) for name, weight in weights.items()}
    apply_mask(weights, masks)
    return masks


@torch.no_grad()
def apply_mask(weights: Mapping[str, nn.Parameter], masks: Mapping[str, Tensor]) -> None:
    """Zero the masked weights again, which momentum or weight decay may have changed; NaN and -0.0 become +0.0, too."""
    for name, weight in weights.items():
        weight.masked_fill_(masks[name] == 0, 0.0)
