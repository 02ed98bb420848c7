"""Apply masks to the weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


@torch.no_grad()
def apply_mask(weights: Mapping[str, nn.Parameter], masks: Mapping[str, Tensor]) -> None:
    """Set masked weights to +0.0 again, which momentum, weight decay, NaN or -0.0 may have changed."""
    for name, weight in weights.items():
        weight.masked_fill_(masks[name] == 0, 0.0)
