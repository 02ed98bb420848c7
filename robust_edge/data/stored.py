"""Images that stay where they are until a batch needs them."""

from __future__ import annotations

import abc
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

CHUNK = 256  # images at a time where all of them are looked at


class StoredImages(abc.ABC):
    """What a `Split` holds instead of a tensor when its images are too many to hold; read by several processes.

    An implementation must survive pickling, for worker processes read with a copy of it.
    """

    dtype = torch.uint8
    ndim = 4

    @property
    @abc.abstractmethod
    def shape(self) -> tuple[int, int, int, int]:
        """(N, C, H, W)."""

    @abc.abstractmethod
    def read(self, indices: Sequence[int]) -> Tensor:
        """(n, C, H, W) uint8 of the chosen images, in the order asked for."""

    @abc.abstractmethod
    def take(self, indices: Sequence[int]) -> StoredImages:
        """The chosen images, still unread."""

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Tensor | slice) -> Tensor:
        chosen = range(len(self))[index] if isinstance(index, slice) else index.tolist()
        return self.read(chosen) if len(chosen) else torch.empty((0, *self.shape[1:]), dtype=torch.uint8)


def chunks(images: Tensor | StoredImages) -> Iterator[Tensor]:
    """All images in order, as few at a time as memory may need."""
    if isinstance(images, Tensor):
        yield images
        return
    for first in range(0, len(images), CHUNK):
        yield images[first : first + CHUNK]
