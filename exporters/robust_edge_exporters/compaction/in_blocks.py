"""Weights in blocks of consecutive input channels, which integer kernels store and multiply as a whole."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def weights_in_blocks(layers: Iterable[Tensor], size: int) -> int:
    """Number of weights in blocks with a non-zero; a block is of one output channel and one tap.

    Args:
        layers: weights (outputs, inputs, ...) of the layers that are not grouped.
        size: input channels of a block; the last of a layer may have fewer, and counts as a whole.
    """
    return sum(size * int(_any_in_blocks(layer != 0, size, dim=1).sum()) for layer in layers)


def whole_blocks(channels: Tensor, size: int) -> Tensor:
    """Of bools per channel, those whose aligned block of `size` channels is true as a whole."""
    others = _any_in_blocks(~channels, size, dim=0)
    return ~others.repeat_interleave(size)[: len(channels)]


def _any_in_blocks(values: Tensor, size: int, dim: int) -> Tensor:
    """Bool per block of `size` along a dimension, which becomes the first: whether any of the bools is true."""
    first = values.movedim(dim, 0)
    missing = first.new_zeros((-len(first) % size, *first.shape[1:]))
    blocks: Tensor = torch.cat([first, missing]).unflatten(0, (-1, size))
    return blocks.any(1)
