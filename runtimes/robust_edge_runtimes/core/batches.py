"""Call a function in batches of a given size."""

from __future__ import annotations

from typing import Callable, Iterator

import numpy as np


def in_batches(
    function: Callable[[np.ndarray], np.ndarray], images: np.ndarray, size: int, *, fill: bool = False
) -> np.ndarray:
    """Call a function with batches of at most `size` images and concatenate what it returns.

    Args:
        function: (n, C, H, W) images to (n, K) logits.
        images: (N, C, H, W), N at least 1.
        size: largest number of images of one call.
        fill: every call gets exactly `size` images: the last one is filled up as by `filled`, and the logits of the
            copies are dropped.

    Returns:
        (N, K) logits, a new array.
    """
    padded = filled(images, size) if fill else images
    parts = [function(padded[part]) for part in batches_of(len(padded), size)]
    return np.concatenate(parts)[: len(images)]


def batches_of(count: int, size: int) -> Iterator[slice]:
    """The rows of each batch of at most `size` out of `count`, in order."""
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def filled(images: np.ndarray, size: int) -> np.ndarray:
    """The images, followed by copies of the last one up to the next multiple of `size`."""
    repeated: np.ndarray = images[filled_positions(len(images), size)]
    return repeated


def filled_positions(count: int, size: int) -> np.ndarray:
    """Positions of `count` images, the last one repeated up to the next multiple of `size`."""
    positions: np.ndarray = np.minimum(np.arange(-(-count // size) * size), count - 1)
    return positions
