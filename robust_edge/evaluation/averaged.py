"""The mean of several networks' class probabilities, as one network.

Source: Marshall 2020, section 4.2.3 and Table C.1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Averaged(nn.Module):
    """A network whose logits are the logarithms of the averaged probabilities, so that their softmax is the average."""

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        if not any(member.training for member in members):  # one that was left in training mode stays visible
            self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) raw pixels to (N, K) logits."""
        logs = torch.stack([member(images).log_softmax(1) for member in self.members])
        return logs.logsumexp(0) - math.log(len(self.members))
