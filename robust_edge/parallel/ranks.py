"""The processes that share a training or an evaluation: one alone, or those that torchrun started."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import importlib
import os
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import distributed
from torch.distributed.rendezvous import rendezvous

T = TypeVar("T")
FAILED = "robust_edge/failed"  # counts the processes that could not go on
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

    def broadcast(self, make: Callable[[], T]) -> T:
        """Rank 0's value of `make()` on every rank; all ranks must call it."""
        if self.world == 1:
            return make()
        values: list[Any] = [make() if self.writes else None]
        distributed.broadcast_object_list(values, src=0)
        return values[0]  # type: ignore[no-any-return]


@contextlib.contextmanager
def torchrun_ranks() -> Iterator[Ranks]:
    """Join the processes of torchrun, if it started this one.

    Objects travel by gloo, tensors on a GPU by NCCL. An error of one rank reaches the others as a broken connection;
    only the first rank that fails speaks, the others leave without a word.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1 or "RANK" not in os.environ:
        yield Ranks()
        return
    _import_before_the_group()
    store, rank, world = next(rendezvous("env://", timeout=PATIENCE))
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and distributed.is_nccl_available() else "gloo"
    distributed.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=PATIENCE)
    try:
        yield Ranks(rank, world)
    except BaseException as error:
        if not _first_to_fail(store):
            raise SystemExit(getattr(error, "exit_code", 1)) from error
        raise
    finally:
        distributed.destroy_process_group()


def _import_before_the_group() -> None:
    """Import the module that keeps the group of its import in its functions' defaults (`group=group.WORLD`).

    DDP imports it. Were there a group by then, it would outlive `destroy_process_group` with gloo's threads, and one
    that lets go of a tensor while the interpreter ends aborts the process.
    """
    importlib.import_module("torch.distributed.nn.functional")


def _first_to_fail(store: Any) -> bool:
    """Whether no other rank has failed before; if even the store is gone, another one has."""
    try:
        return bool(store.add(FAILED, 1) == 1)
    except RuntimeError:
        return False


def device_of_rank(device: torch.device) -> torch.device:
    """The GPU that torchrun meant for this process, where a GPU was asked for without a number."""
    local = os.environ.get("LOCAL_RANK")
    if device.type == "cuda" and device.index is None and local is not None:
        return torch.device("cuda", int(local) % torch.cuda.device_count())
    return device
