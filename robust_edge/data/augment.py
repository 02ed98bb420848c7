"""Random flips, rotations and shifts of a whole batch at once, on the device of the batch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from robust_edge.parallel.rows import Rows, all_rows

MAX_ROTATION = math.radians(15)


def augment(images: Tensor, names: Sequence[str], generator: torch.Generator, rows: Rows | None = None) -> Tensor:
    """Apply each named augmentation; every image gets random parameters of its own.

    Args:
        images: (N, C, H, W) float in [0, 1].
        names: any of `flip` (left-right, half of the images), `rotate` (up to 15 degrees, bilinear), `shift` (up to an
            eighth of the side, filled with zeros), `crop` (the same: pad and crop).
        generator: a CPU generator, the only source of randomness.
        rows: the part of a batch that this process holds; None for the whole batch.

    Returns:
        New images of the same shape, in [0, 1].
    """
    own = rows or all_rows(images)
    for name in names:
        images = {"flip": _flip, "rotate": _rotate, "shift": _shift, "crop": _shift}[name](images, own, generator)
    return images


def _flip(images: Tensor, rows: Rows, generator: torch.Generator) -> Tensor:
    chosen = rows.uniform((1, 1, 1), generator).to(images.device) < 0.5
    return torch.where(chosen, images.flip(3), images)


def _rotate(images: Tensor, rows: Rows, generator: torch.Generator) -> Tensor:
    _, _, height, width = images.shape
    aspect = height / width  # the coordinates of the grid run from -1 to 1 along both sides, whatever their lengths
    angle = (rows.uniform((), generator) * 2 - 1) * MAX_ROTATION
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    matrices = torch.stack([torch.stack([cos, -sin * aspect, zero], 1), torch.stack([sin / aspect, cos, zero], 1)], 1)
    return _resampled(images, matrices)


def _shift(images: Tensor, rows: Rows, generator: torch.Generator) -> Tensor:
    count, _, height, width = images.shape
    right, down = max(1, width // 8), max(1, height // 8)
    padded = functional.pad(images, (right, right, down, down)).movedim(1, -1)
    columns, lines = (
        (rows.integers(0, 2 * limit + 1, generator).view(-1, 1) + torch.arange(side)).to(images.device)
        for limit, side in ((right, width), (down, height))
    )
    image = torch.arange(count, device=images.device).view(-1, 1, 1)
    return padded[image, lines[:, :, None], columns[:, None, :]].movedim(-1, 1)


def _resampled(images: Tensor, matrices: Tensor) -> Tensor:
    grid = functional.affine_grid(matrices.to(images), list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, mode="bilinear", align_corners=False)
