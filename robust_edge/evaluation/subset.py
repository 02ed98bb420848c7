"""Which test images an evaluation uses."""

from __future__ import annotations

import dataclasses

import torch

from robust_edge.data import Split
from robust_edge_runtimes.core.errors import InputError

SUBSET_SEED = 20200831  # constant, so that a limit selects the same images for any seed


@dataclasses.dataclass(frozen=True)
class Subset:
    """Which images were evaluated: the whole test split, or a fixed random subset.

    Attributes:
        images: number of evaluated images.
        of: number of images in the test split.
        seed: seed of the random subset; None for the whole test split.
    """

    images: int
    of: int
    seed: int | None


def subset_of(chosen: Split, whole: Split) -> Subset:
    """Describe the result of `choose` for the record."""
    return Subset(len(chosen), len(whole), SUBSET_SEED if len(chosen) < len(whole) else None)


def choose(split: Split, limit: int | None) -> tuple[Split, tuple[int, ...]]:
    """At most `limit` images, drawn at random with a fixed seed, in the order of the split.

    Returns:
        The images and their indices in the split. The images of a smaller limit are a subset of those of a larger one.

    Raises:
        InputError: the split is empty, or the limit is below 1.
    """
    if len(split) == 0 or (limit is not None and limit < 1):
        raise InputError(f"no images to evaluate: {len(split)} in the test split, `limit` is {limit}")
    if limit is None or limit >= len(split):
        return split, tuple(range(len(split)))
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(SUBSET_SEED))
    rows = order[:limit].sort().values
    return split.take(rows), tuple(rows.tolist())
