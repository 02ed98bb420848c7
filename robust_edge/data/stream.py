"""Batches of images that do not lie on the device: worker processes read ahead while the network trains."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from robust_edge.data.dataset import Batch, Source, Split
from robust_edge_runtimes.core.environment import available_cores
from robust_edge_runtimes.core.errors import RobustEdgeError

AHEAD = 4  # batches that every worker has ready


class Streamed:
    """A split whose batches travel to the device one by one.

    The order of batches is the caller's and does not depend on the number of workers; torch's global random state
    is left alone. The workers live as long as this object.
    """

    def __init__(self, split: Split, device: torch.device, workers: int) -> None:
        self.split = split
        self.device = device
        self.order = _Order()
        workers = min(workers, available_cores())  # more of them only wait for each other, and torch warns
        self.loader: DataLoader[Any] = DataLoader(
            _Rows(split),
            batch_sampler=self.order,
            num_workers=workers,
            collate_fn=_unchanged,
            pin_memory=device.type == "cuda",
            prefetch_factor=AHEAD if workers else None,
            persistent_workers=workers > 0,
            generator=torch.Generator(),
        )

    def __len__(self) -> int:
        return len(self.split)

    def batches(self, indices: Sequence[Tensor]) -> Iterator[Batch]:
        """As `Split.batches`."""
        self.order.batches = [index.tolist() for index in indices]
        for read in self.loader:
            if isinstance(read, RobustEdgeError):
                raise read
            images, labels = read
            moved = images.to(self.device, non_blocking=True)
            yield Batch(moved.float().div_(self.split.levels), labels.to(self.device, non_blocking=True))


def source_of(split: Split, device: torch.device, *, stays: bool, workers: int) -> Source:
    """A source of batches: the images on the device if they may stay there, else streamed to it."""
    return split.to(device) if stays else Streamed(split, device, workers)


class _Order(Sampler[list[int]]):
    """The batches of the present epoch."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


@dataclasses.dataclass(frozen=True, eq=False)
class _Rows(Dataset[Any]):
    """What a worker reads: whole batches at once."""

    split: Split

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor] | RobustEdgeError:
        chosen = torch.tensor(indices, dtype=torch.int64)
        try:
            return self.split.images[chosen], self.split.labels[chosen]
        except RobustEdgeError as error:  # raised in the worker, it would arrive as a page of traceback
            return error


def _unchanged(batch: Any) -> Any:
    return batch
