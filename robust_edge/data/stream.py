"""Batches of images that are not kept on the device: worker processes read them ahead of the training."""

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

PREFETCH = 4  # batches that every worker reads ahead


class Streamed:
    """A split whose batches are copied to the device one by one.

    The caller determines the order of the batches, whatever the number of workers. The global random state of torch is
    not used. The workers live as long as this object.
    """

    def __init__(self, split: Split, device: torch.device, workers: int) -> None:
        self.split = split
        self.device = device
        self.order = _Order()
        workers = min(workers, available_cores())  # more than that slow each other down, and torch warns
        self.loader: DataLoader[Any] = DataLoader(
            _Rows(split),
            batch_sampler=self.order,
            num_workers=workers,
            collate_fn=_unchanged,
            pin_memory=device.type == "cuda",
            prefetch_factor=PREFETCH if workers else None,
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
    """A source of batches: all images kept on the device (`stays`), or batches copied to it one by one."""
    return split.to(device) if stays else Streamed(split, device, workers)


class _Order(Sampler[list[int]]):
    """The indices of the batches of the current epoch."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


@dataclasses.dataclass(frozen=True, eq=False)
class _Rows(Dataset[Any]):
    """Reads a whole batch in a worker process."""

    split: Split

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor] | RobustEdgeError:
        chosen = torch.tensor(indices, dtype=torch.int64)
        try:
            return self.split.images[chosen], self.split.labels[chosen]
        except RobustEdgeError as error:  # raised in the worker, it would arrive with a long traceback
            return error


def _unchanged(batch: Any) -> Any:
    return batch
