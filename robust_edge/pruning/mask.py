"""Fixed masks, and applying them to the weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


@torch.no_grad()
def hard_prune(weights: Mapping[str, nn.Parameter], support: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Set the weights outside the support to zero and return the masks for further training.

    A mask marks positions: a kept weight that happens to be zero is still trained.

    Args:
        weights: parameters by name.
        support: of all of them, and of others that are masked in another way.

    Returns:
        Name to a float mask of 0 and 1, shaped like the weight, for everything in `support`.
    """
    masks = {name: kept.float() for name, kept in support.items()}
    apply_mask(weights, masks)
    return masks


@torch.no_grad()
def apply_mask(weights: Mapping[str, nn.Parameter], masks: Mapping[str, Tensor]) -> None:
    """Set masked weights to +0.0 again, which momentum, weight decay, NaN or -0.0 may have changed."""
    for name, weight in weights.items():
        weight.masked_fill_(masks[name] == 0, 0.0)
