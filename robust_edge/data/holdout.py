"""Setting training images aside, so that no test image ever decides anything."""

from __future__ import annotations

import torch
from torch import Tensor

from robust_edge.data.dataset import Split, evenly
from robust_edge_runtimes.core.errors import InputError

SEED = 20_201_124
"""Fixed: runs with other seeds hold out the same images, so that their figures compare."""


def hold_out(split: Split, count: int) -> tuple[Split, Split]:
    """Split into what is trained on, in its old order, and `count` random images, as many of every class as possible.

    Raises:
        InputError: fewer than two images would be left to train on.
    """
    if count == 0:
        return split, split.first(0)
    if count > len(split) - 2:
        raise InputError(
            f"selection.held_out is {count}, of {len(split)} training images; leave most of them to train on"
        )
    chosen = drawn(split, count)
    trains = torch.ones(len(split), dtype=torch.bool)
    trains[chosen] = False
    return split.take(trains.nonzero().squeeze(1)), split.take(chosen)


def drawn(split: Split, count: int) -> Tensor:
    """Indices of `count` random images, as many of every class as possible; a smaller count draws the first of them."""
    shuffled = torch.randperm(len(split), generator=torch.Generator().manual_seed(SEED))
    return shuffled[evenly(split.labels.cpu()[shuffled], count)]
