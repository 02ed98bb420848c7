"""The number of images that are attacked at once, so that large images do not take more memory than there is."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

MOST_IMAGES = 250
MOST_VALUES = 1 << 20
"""Values of a batch on a CPU: 6 images of 3x224x224, whose activations and gradients in a ResNet50 take 0.6 GB."""


def batch_size(shape: Sequence[int], device: torch.device) -> int:
    """Images of the shape (C, H, W) that one pass takes; on a CPU fewer large ones, which are no slower there."""
    if device.type != "cpu":
        return MOST_IMAGES
    return max(1, min(MOST_IMAGES, MOST_VALUES // math.prod(shape)))
