"""The part of a batch that one process holds when several processes share it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True)
class Rows:
    """Images `first` to `last - 1` of a batch of `total` images.

    Every process draws the same random numbers for the whole batch and uses those of its own images. The random numbers
    of an image therefore do not depend on the number of processes.
    """

    first: int
    last: int
    total: int

    def __len__(self) -> int:
        return self.last - self.first

    def uniform(self, shape: Sequence[int], generator: torch.Generator) -> Tensor:
        """Uniform numbers in [0, 1) of shape (own images, *shape), on the device of the generator."""
        drawn = torch.rand((self.total, *shape), generator=generator, device=generator.device)
        return drawn[self.first : self.last]

    def integers(self, low: int, high: int, generator: torch.Generator) -> Tensor:
        """One integer in [low, high) for each own image, on the device of the generator."""
        drawn = torch.randint(low, high, (self.total,), generator=generator, device=generator.device)
        return drawn[self.first : self.last]


def all_rows(images: Tensor) -> Rows:
    """The whole batch, held by one process."""
    return Rows(0, len(images), len(images))


def share_rows(total: int, rank: int, world: int) -> Rows:
    """The part of a batch of one of `world` processes; the parts differ by at most one image."""
    return Rows(total * rank // world, total * (rank + 1) // world, total)
