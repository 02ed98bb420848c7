"""Data-parallel training: every rank holds the same network and trains on its part of each batch.

Gradients are averaged once per step, after the backward pass, and every rank makes the same step. ADMM state, masks and
momentum are computed on every rank from the same weights; `check_same` compares them. Averaging does not overlap with
the backward pass, because only one of the 2s + 3 passes of a step produces gradients of the weights.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

from robust_edge.data import Dataset
from robust_edge.parallel.ranks import Ranks
from robust_edge_runtimes.core.errors import InputError, RobustEdgeError

M = TypeVar("M", bound=nn.Module)
LEAST_IMAGES = 2  # per batch and rank: batch norm cannot be trained on a single image


def check_batch(batch_size: int, ranks: Ranks) -> None:
    """Check that every rank gets enough images of a batch.

    Raises:
        InputError: the batch is too small for this number of ranks.
    """
    least = LEAST_IMAGES * ranks.world
    if batch_size < least:
        raise InputError(
            f"training.batch_size counts the images of all ranks together; it is {batch_size}, {ranks.world} ranks "
            f"need at least {least}"
        )


def check_same_images(dataset: Dataset, ranks: Ranks) -> None:
    """Check that all ranks loaded the same data set, by its shapes and labels.

    Raises:
        InputError: the ranks loaded different data sets.
    """
    labels = [part.labels.cpu().numpy().tobytes() for part in (dataset.train, dataset.test)]
    shapes = [tuple(part.images.shape) for part in (dataset.train, dataset.test)]
    digest = hashlib.sha256(repr((dataset.name, dataset.classes, shapes)).encode() + b"".join(labels)).hexdigest()
    for rank, other in enumerate(ranks.gather(digest)):
        if other != digest:
            raise InputError(
                f"rank {rank} loaded other {dataset.name} images than rank {ranks.rank}; give every machine the same "
                "files under the same data.dir"
            )


def replicate(model: M, device: torch.device, ranks: Ranks) -> M:
    """Give every rank the weights of rank 0, and on GPUs batch-norm over the whole batch.

    On CPUs every rank normalises its own part of the batch, because torch's SyncBatchNorm needs a GPU; running
    statistics are averaged on both (`RankShare.average`).
    """
    if ranks.world == 1:
        return model
    for tensor in model.state_dict().values():
        distributed.broadcast(tensor, src=0)
    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(model)  # replaces the layers inside
    return model


@dataclasses.dataclass(frozen=True)
class RankShare:
    """The part of one batch that this rank holds.

    Attributes:
        weight: number of its images divided by that of the batch; the weights of all ranks sum to 1.
        ranks: all ranks; the methods are collective operations, which every rank must call.
    """

    weight: float
    ranks: Ranks

    @torch.no_grad()
    def average(self, model: nn.Module) -> None:
        """Replace gradients and running statistics by their mean over the ranks.

        Args:
            model: the network after the backward pass of the mean loss over the rank's own images.
        """
        if self.ranks.world == 1:
            return
        tensors = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        tensors += _statistics(model)
        flat = torch.cat([tensor.flatten() for tensor in tensors]).mul_(self.weight)
        distributed.all_reduce(flat)
        for tensor, mean in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(mean.view(tensor.shape))

    def mean(self, value: float) -> float:
        """The mean over the whole batch, from this rank's mean over its own images."""
        return float(sum_over_ranks(torch.tensor(value * self.weight, dtype=torch.float64), self.ranks))


WHOLE_BATCH = RankShare(1.0, Ranks())


def sum_over_ranks(sums: Tensor, ranks: Ranks) -> Tensor:
    """The sum of a CPU tensor over all ranks."""
    if ranks.world > 1:
        distributed.all_reduce(sums)
    return sums


def check_same(state: Mapping[str, Any], ranks: Ranks) -> None:
    """Check that all ranks hold the same tensors, by a checksum of each entry of `state`.

    Raises:
        RobustEdgeError: an entry differs; the message names all such entries.
    """
    if ranks.world == 1:
        return
    gathered = ranks.gather({name: _checksum(value) for name, value in state.items()})
    for rank, sums in enumerate(gathered):
        differing = [name for name in state if sums.get(name) != gathered[0].get(name)]
        if differing:
            raise RobustEdgeError(
                f"rank {rank} and rank 0 differ in {', '.join(differing)}; give all ranks the same kind of "
                "device and the same software, and resume the run"
            )


def _statistics(model: nn.Module) -> list[Tensor]:
    layers = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    found = [tensor for layer in layers for tensor in (layer.running_mean, layer.running_var)]
    return [tensor for tensor in found if tensor is not None]


def _checksum(value: Any) -> tuple[int, ...]:
    sums = [_bits(tensor).sum(dtype=torch.int64) for tensor in _tensors(value)]
    return tuple(torch.stack([item.cpu() for item in sums]).tolist()) if sums else ()


def _bits(tensor: Tensor) -> Tensor:
    flat = tensor.detach().contiguous().flatten()
    return flat.view(torch.int32) if flat.element_size() == 4 else flat.view(torch.uint8)


def _tensors(value: Any) -> Iterator[Tensor]:
    """Every tensor in nested containers, in their order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)
