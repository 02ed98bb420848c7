"""The processes that share an evaluation: one alone, or those that torchrun started."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import os
from collections.abc import Iterator
from typing import Any

import torch
from torch import distributed

PATIENCE = datetime.timedelta(days=7)  # a batch may take hours; torchrun itself ends what has failed


@dataclasses.dataclass(frozen=True)
class Ranks:
    """Where this process stands.

    Attributes:
        rank: from 0; rank 0 is the only one that writes.
        world: how many processes share the work.
    """

    rank: int = 0
    world: int = 1

    @property
    def writes(self) -> bool:
        """Whether files and results are this process's business."""
        return self.rank == 0

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value, in order of rank; all ranks must call it."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        distributed.all_gather_object(values, value)
        return values


@contextlib.contextmanager
def torchrun_ranks() -> Iterator[Ranks]:
    """Join the processes of torchrun, if it started this one; results travel by gloo on any device."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1 or "RANK" not in os.environ:
        yield Ranks()
        return
    distributed.init_process_group("gloo", timeout=PATIENCE)
    try:
        yield Ranks(distributed.get_rank(), world)
    finally:
        distributed.destroy_process_group()


def device_of_rank(device: torch.device) -> torch.device:
    """The GPU that torchrun meant for this process, where a GPU was asked for without a number."""
    local = os.environ.get("LOCAL_RANK")
    if device.type == "cuda" and device.index is None and local is not None:
        return torch.device("cuda", int(local) % torch.cuda.device_count())
    return device
