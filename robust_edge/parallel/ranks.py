"""The processes that share a training or an evaluation: a single one, or those that torchrun started."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import importlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import distributed
from torch.distributed.rendezvous import rendezvous

from robust_edge_runtimes.core.locks import locked

T = TypeVar("T")
FAILED = "robust_edge/failed"  # key of the number of failed processes in the store
TIMEOUT = datetime.timedelta(days=7)  # a batch may take hours; torchrun itself ends failed processes


@dataclasses.dataclass(frozen=True)
class Ranks:
    """The rank of this process.

    Attributes:
        rank: from 0; only rank 0 writes files.
        world: number of processes that share the work.
    """

    rank: int = 0
    world: int = 1

    @property
    def writes(self) -> bool:
        """Whether this process writes files and prints results."""
        return self.rank == 0

    def gather(self, value: Any) -> list[Any]:
        """The values of all ranks, in order of rank; all ranks must call it."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        distributed.all_gather_object(values, value)
        return values

    def broadcast(self, make: Callable[[], T]) -> T:
        """The value of `make()`, computed on rank 0, on every rank; all ranks must call it."""
        if self.world == 1:
            return make()
        values: list[Any] = [make() if self.writes else None]
        distributed.broadcast_object_list(values, src=0)
        return values[0]  # type: ignore[no-any-return]

    @contextlib.contextmanager
    def locked(self, path: Path) -> Iterator[None]:
        """Let rank 0 hold the lock of an output; all ranks must enter it.

        Raises:
            InputError: another process writes the output.
        """
        with contextlib.ExitStack() as stack:
            self.broadcast(lambda: stack.enter_context(locked(path)))
            yield


@contextlib.contextmanager
def torchrun_ranks() -> Iterator[Ranks]:
    """Join the process group of torchrun, if torchrun started this process.

    Objects are exchanged through gloo, tensors on a GPU through NCCL. When one rank fails, the connections of the
    others break: only the first rank that fails prints its error, the others exit silently.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1 or "RANK" not in os.environ:
        yield Ranks()
        return
    _import_distributed_functional()
    store, rank, world = next(rendezvous("env://", timeout=TIMEOUT))
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and distributed.is_nccl_available() else "gloo"
    distributed.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=TIMEOUT)
    try:
        yield Ranks(rank, world)
    except BaseException as error:
        if not _first_to_fail(store):
            raise SystemExit(getattr(error, "exit_code", 1)) from error
        raise
    finally:
        distributed.destroy_process_group()


def _import_distributed_functional() -> None:
    """Import `torch.distributed.nn.functional` before there is a process group.

    DDP imports it, and its functions have `group=group.WORLD` as a default. A group that exists at its import would
    therefore outlive `destroy_process_group`, and with it the threads of gloo; one of them that frees a tensor during
    the exit of the interpreter aborts the process.
    """
    importlib.import_module("torch.distributed.nn.functional")


def _first_to_fail(store: Any) -> bool:
    """Whether no other rank has failed before. If the store is gone, another one has."""
    try:
        return bool(store.add(FAILED, 1) == 1)
    except RuntimeError:
        return False


def device_of_rank(device: torch.device) -> torch.device:
    """The GPU that torchrun assigned to this process, where `device` is a GPU without an index."""
    local = os.environ.get("LOCAL_RANK")
    if device.type == "cuda" and device.index is None and local is not None:
        return torch.device("cuda", int(local) % torch.cuda.device_count())
    return device
