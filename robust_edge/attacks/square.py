"""The black-box attack Square, which is written in numpy, on torch networks."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from robust_edge.attacks.modes import evaluation_mode
from robust_edge_runtimes.attacks.square import Square
from robust_edge_runtimes.attacks.threat import Threat

__all__ = ["Square", "square_attack"]


def square_attack(
    model: nn.Module, images: Tensor, labels: Tensor, attack: Square, threat: Threat, generator: torch.Generator
) -> Tensor:
    """Compute one candidate per image: the one with the smallest margin.

    Args:
        model: raw pixels to logits; used in evaluation mode and without gradients.
        images: (N, C, H, W) float in [0, 1].
        labels: (N,) int64.
        attack: the settings.
        threat: the ball; `linf`.
        generator: a CPU generator.
    """

    def score(points: np.ndarray) -> np.ndarray:
        logits: np.ndarray = model(torch.from_numpy(points).to(images)).cpu().numpy()
        return logits

    random = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
    with torch.no_grad(), evaluation_mode(model):
        pixels, truth = images.float().cpu().numpy(), labels.cpu().numpy()
        found = attack.perturb(score, pixels, truth, threat, random)
    return torch.from_numpy(found).to(images)
