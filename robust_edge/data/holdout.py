"""Hold out training images for the choice of an epoch, so that no decision uses test images."""

from __future__ import annotations

import torch
from torch import Tensor

from robust_edge.data.dataset import Split, evenly
from robust_edge_runtimes.core.errors import InputError

SEED = 20_201_124
"""Constant, so that runs with different seeds hold out the same images and can be compared."""


def hold_out(split: Split, count: int) -> tuple[Split, Split]:
    """Split into training images, in their old order, and `count` random held-out images, balanced over the classes.

    Raises:
        InputError: fewer than two training images would be left.
    """
    if count == 0:
        return split, split.first(0)
    if count > len(split) - 2:
        raise InputError(
            f"selection.held_out is {count}, but there are only {len(split)} training images; hold out fewer of them"
        )
    chosen = balanced_sample(split, count)
    remaining = torch.ones(len(split), dtype=torch.bool)
    remaining[chosen] = False
    return split.take(remaining.nonzero().squeeze(1)), split.take(chosen)


def balanced_sample(split: Split, count: int) -> Tensor:
    """Indices of `count` random images, balanced over the classes; a smaller count gives the first of them."""
    shuffled = torch.randperm(len(split), generator=torch.Generator().manual_seed(SEED))
    return shuffled[evenly(split.labels.cpu()[shuffled], count)]
