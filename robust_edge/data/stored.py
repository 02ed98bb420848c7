"""Images that are read from storage when a batch needs them."""

from __future__ import annotations

import abc
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

CHUNK = 256  # number of images that are read at once when all are processed


class StoredImages(abc.ABC):
    """The images of a `Split` that are too many for memory.

    An implementation must support pickling: worker processes read with a copy of it.
    """

    dtype = torch.uint8
    ndim = 4

    @property
    @abc.abstractmethod
    def shape(self) -> tuple[int, int, int, int]:
        """(N, C, H, W)."""

    @abc.abstractmethod
    def read(self, indices: Sequence[int]) -> Tensor:
        """Read the chosen images as (n, C, H, W) uint8, in the order of `indices`."""

    @abc.abstractmethod
    def take(self, indices: Sequence[int]) -> StoredImages:
        """The chosen images, without reading them."""

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Tensor | slice) -> Tensor:
        chosen = range(len(self))[index] if isinstance(index, slice) else index.tolist()
        return self.read(chosen) if len(chosen) else torch.empty((0, *self.shape[1:]), dtype=torch.uint8)


def chunks(images: Tensor | StoredImages) -> Iterator[Tensor]:
    """Yield all images in order, stored ones CHUNK at a time."""
    if isinstance(images, Tensor):
        yield images
        return
    for first in range(0, len(images), CHUNK):
        yield images[first : first + CHUNK]
