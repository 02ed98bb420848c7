"""Hold out training images for the choice of an epoch, so that no decision uses test images."""

from __future__ import annotations

import torch
from torch import Tensor

from robust_edge.data.dataset import Split, evenly
from robust_edge_runtimes.core.errors import InputError

SEED = 20_201_124
"""Constant, so that runs with different seeds hold out the same images and can be compared."""


FEWEST = 5
"""Of so many training images one is held out."""


def held_out_of(images: int, asked: int) -> int:
    """The number of images to hold out: what was asked for, or a fifth of the images where that is more than half."""
    return asked if 2 * asked <= images else images // 5


def shortened(images: int, asked: int) -> str | None:
    """A note if fewer images are held out than was asked for; else None."""
    count = held_out_of(images, asked)
    if count == asked:
        return None
    return (
        f"{count} of {images} training images are held out, a fifth; selection.held_out is {asked}, which is more than "
        "half of them"
    )


def hold_out(split: Split, asked: int) -> tuple[Split, Split]:
    """Split into training images, in their old order, and random held-out images, balanced over the classes.

    Their number is `held_out_of(len(split), asked)`.

    Raises:
        InputError: there are too few training images to hold one out.
    """
    if asked == 0:
        return split, split.first(0)
    if len(split) < FEWEST:
        raise InputError(
            f"selection.held_out is {asked}, but there are only {len(split)} training images; set selection.held_out=0"
        )
    chosen = balanced_sample(split, held_out_of(len(split), asked))
    remaining = torch.ones(len(split), dtype=torch.bool)
    remaining[chosen] = False
    return split.take(remaining.nonzero().squeeze(1)), split.take(chosen)


def balanced_sample(split: Split, count: int) -> Tensor:
    """Indices of `count` random images, balanced over the classes; a smaller count gives the first of them."""
    shuffled = torch.randperm(len(split), generator=torch.Generator().manual_seed(SEED))
    return shuffled[evenly(split.labels.cpu()[shuffled], count)]
