"""Which test images an evaluation uses."""

from __future__ import annotations

import dataclasses

import torch

from robust_edge.data import Split
from robust_edge_runtimes.core.errors import InputError

SUBSET_SEED = 20200831  # of every --limit, so that the same N gives the same images whatever --seed is


@dataclasses.dataclass(frozen=True)
class Subset:
    """Which images: all of the test split, or a fixed random part.

    Attributes:
        seed: of the choice; None where all were taken.
    """

    images: int
    of: int
    seed: int | None


def subset_of(chosen: Split, whole: Split) -> Subset:
    """What `choose` has chosen, for the record."""
    return Subset(len(chosen), len(whole), SUBSET_SEED if len(chosen) < len(whole) else None)


def choose(split: Split, limit: int | None) -> tuple[Split, tuple[int, ...]]:
    """At most `limit` images, drawn at random with a fixed seed, in the order of the split.

    Returns:
        The images, and their positions in the split; smaller limits choose from among those of larger ones.

    Raises:
        InputError: none to choose.
    """
    if len(split) == 0 or (limit is not None and limit < 1):
        raise InputError(f"no images to evaluate: {len(split)} in the test split, --limit {limit}")
    if limit is None or limit >= len(split):
        return split, tuple(range(len(split)))
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(SUBSET_SEED))
    rows = order[:limit].sort().values
    return split.take(rows), tuple(rows.tolist())
