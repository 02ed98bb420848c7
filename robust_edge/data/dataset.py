"""Images in memory: uint8 tensors that become floats in [0, 1] batch by batch."""

from __future__ import annotations

import dataclasses
import hashlib

import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Labelled images.

    Attributes:
        images: (N, C, H, W) uint8.
        labels: (N,) int64.
        levels: the value that stands for 1.0 (255 for ordinary pictures, 16 for digits).
    """

    images: Tensor
    labels: Tensor
    levels: int = 255

    def __len__(self) -> int:
        return len(self.labels)

    def floats(self, index: Tensor | slice) -> Tensor:
        """(n, C, H, W) float32 in [0, 1] of the chosen images."""
        return self.images[index].float().div_(self.levels)

    def to(self, device: torch.device) -> Split:
        """The same images on a device."""
        return Split(self.images.to(device), self.labels.to(device), self.levels)

    def first(self, count: int | None) -> Split:
        """The first `count` images; all of them for None."""
        return self if count is None else Split(self.images[:count], self.labels[:count], self.levels)


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """A training and a test split of the same classes and image shape."""

    name: str
    classes: tuple[str, ...]
    train: Split
    test: Split

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        _, channels, height, width = self.train.images.shape
        return channels, height, width

    def channel_statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation per channel of the training images, to four decimals."""
        planes = self.train.images.transpose(0, 1).flatten(1)
        counts = torch.stack([torch.bincount(plane, minlength=256) for plane in planes]).double()  # no float copy
        values, pixels = torch.arange(256, dtype=torch.float64) / self.train.levels, planes.shape[1]
        mean = counts @ values / pixels
        variance = (counts * (values - mean[:, None]) ** 2).sum(1) / max(pixels - 1, 1)
        std = variance.sqrt().clamp_min(1e-3)
        return tuple(round(v, 4) for v in mean.tolist()), tuple(round(v, 4) for v in std.tolist())

    def fingerprint(self) -> str:
        """SHA-256 over classes, images and labels of both splits."""
        digest = hashlib.sha256(repr((self.name, self.classes)).encode())
        for split in (self.train, self.test):
            digest.update(repr((tuple(split.images.shape), split.levels)).encode())
            digest.update(split.images.contiguous().numpy().tobytes())
            digest.update(split.labels.numpy().tobytes())
        return digest.hexdigest()


def evenly(labels: Tensor, limit: int | None) -> Tensor:
    """Indices of at most `limit` items, taken in turn from every class, in an order that mixes classes."""
    within: dict[int, int] = {}
    rank = []
    for position, label in enumerate(labels.tolist()):
        within[label] = within.get(label, -1) + 1
        rank.append((within[label], position))
    order = torch.tensor([position for _, position in sorted(rank)], dtype=torch.int64)
    return order if limit is None else order[:limit]
