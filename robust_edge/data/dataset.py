"""Labelled images: uint8, in memory or read on demand, converted to floats in [0, 1] batch by batch."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from robust_edge.data.stored import StoredImages, chunks
from robust_edge_runtimes.core.errors import InputError
from robust_edge_runtimes.core.preprocessing import Preprocessing


class Batch(NamedTuple):
    """Images (n, C, H, W) float32 in [0, 1] and labels (n,) int64, on the training device."""

    images: Tensor
    labels: Tensor


class Source(Protocol):
    """A source of training batches."""

    def __len__(self) -> int: ...

    def batches(self, indices: Sequence[Tensor]) -> Iterator[Batch]:
        """Yield one batch for each (n,) int64 index, in this order."""


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Labelled images.

    Attributes:
        images: (N, C, H, W) uint8; a tensor, or images that are read on indexing.
        labels: (N,) int64.
        levels: the pixel value that is converted to 1.0 (255 for ordinary images, 16 for digits).
    """

    images: Tensor | StoredImages
    labels: Tensor
    levels: int = 255

    def __len__(self) -> int:
        return len(self.labels)

    def floats(self, index: Tensor | slice) -> Tensor:
        """The chosen images as (n, C, H, W) float32 in [0, 1]."""
        return self.images[index].float().div_(self.levels)

    def batches(self, indices: Sequence[Tensor]) -> Iterator[Batch]:
        """Yield one batch for each (n,) int64 index, in this order."""
        for index in indices:
            yield Batch(self.floats(index), self.labels[index])

    def to(self, device: torch.device) -> Split:
        """The same images as a tensor on a device."""
        images = self.images if isinstance(self.images, Tensor) else self.images[:]
        return Split(images.to(device), self.labels.to(device), self.levels)

    def take(self, index: Tensor) -> Split:
        """The images at the (n,) int64 indices, in this order; images that are read on demand are not read yet."""
        place = index.to(self.labels.device)
        images = self.images[place] if isinstance(self.images, Tensor) else self.images.take(index.tolist())
        return Split(images, self.labels[place], self.levels)

    def first(self, count: int | None) -> Split:
        """The first `count` images; all of them for None."""
        if count is None:
            return self
        if isinstance(self.images, Tensor):
            return Split(self.images[:count], self.labels[:count], self.levels)
        return self.take(torch.arange(len(self))[:count])


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """A training and a test split of the same classes and image shape.

    Attributes:
        origin: the data set as it was read, whose classes were numbered otherwise; None for itself.
        preprocessing: how pictures become images like these, which clients of the network repeat.
        notes: what a reader should know about how the images were read, one sentence each.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    test: Split
    origin: Dataset | None = None
    preprocessing: Preprocessing = dataclasses.field(default_factory=Preprocessing)
    notes: tuple[str, ...] = ()

    def with_classes(self, classes: tuple[str, ...]) -> Dataset:
        """The same images with the classes of a network, which may know more of them, and in another order.

        Raises:
            InputError: the network does not know a class.
        """
        if classes == self.classes:
            return self
        unknown = sorted(set(self.classes) - set(classes))
        if unknown:
            raise InputError(f"class {unknown[0]!r} of data set {self.name} is none of the network's {len(classes)}")
        places = torch.tensor([classes.index(name) for name in self.classes])
        train, test = (
            dataclasses.replace(split, labels=places.to(split.labels.device)[split.labels])
            for split in (self.train, self.test)
        )
        return dataclasses.replace(self, classes=classes, train=train, test=test, origin=self)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        _, channels, height, width = self.train.images.shape
        return channels, height, width

    @property
    def pixels(self) -> int:
        """Bytes of all images."""
        return (len(self.train) + len(self.test)) * math.prod(self.shape)

    def channel_statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation per channel of the training images, to four decimals."""
        counts = self._survey[1].double()
        values, pixels = torch.arange(256, dtype=torch.float64) / self.train.levels, int(counts[0].sum())
        mean = counts @ values / pixels
        variance = (counts * (values - mean[:, None]) ** 2).sum(1) / max(pixels - 1, 1)
        std = variance.sqrt().clamp_min(1e-3)
        return tuple(round(v, 4) for v in mean.tolist()), tuple(round(v, 4) for v in std.tolist())

    def fingerprint(self) -> str:
        """SHA-256 of classes, images and labels of both splits, as they were read."""
        return self._survey[0] if self.origin is None else self.origin.fingerprint()

    @functools.cached_property
    def _survey(self) -> tuple[str, Tensor]:
        """In one pass: the fingerprint, and the (C, 256) histograms of the training images."""
        digest = hashlib.sha256(repr((self.name, self.classes)).encode())
        counts = torch.zeros(self.shape[0], 256, dtype=torch.int64)
        for is_test, split in enumerate((self.train, self.test)):
            digest.update(repr((tuple(split.images.shape), split.levels)).encode())
            for part in chunks(split.images):
                host = part.cpu()
                digest.update(host.contiguous().numpy().tobytes())
                counts += 0 if is_test else _histograms(host)
            digest.update(split.labels.cpu().numpy().tobytes())
        return digest.hexdigest(), counts


def _histograms(images: Tensor) -> Tensor:
    """(C, 256) counts of each pixel value in each channel, without a float copy of the images."""
    planes = images.transpose(0, 1).flatten(1)
    return torch.stack([torch.bincount(plane, minlength=256) for plane in planes])


def evenly(labels: Tensor, limit: int | None) -> Tensor:
    """Indices of at most `limit` items: the first of every class, then the second of every class, and so on."""
    within: dict[int, int] = {}
    rank = []
    for position, label in enumerate(labels.tolist()):
        within[label] = within.get(label, -1) + 1
        rank.append((within[label], position))
    order = torch.tensor([position for _, position in sorted(rank)], dtype=torch.int64)
    return order if limit is None else order[:limit]
