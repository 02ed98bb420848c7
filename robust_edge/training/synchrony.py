"""Keeping the networks of several processes one network.

Every rank sees its part of each batch, takes the mean of all gradients and makes the same step; ADMM state, masks and
momentum follow from equal weights by equal arithmetic, which `check_same` watches. Gradients travel once per step,
after the backward pass: of the 2s + 3 passes of a step only one has gradients that could travel meanwhile.
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
LEAST_IMAGES = 2  # of a batch on one rank, as batch-norm needs


def check_batch(batch_size: int, ranks: Ranks) -> None:
    """Whether every rank gets its part of a batch.

    Raises:
        InputError: the batch is too small for so many ranks.
    """
    least = LEAST_IMAGES * ranks.world
    if batch_size < least:
        raise InputError(
            f"training.batch_size counts the images of all ranks together; it is {batch_size}, {ranks.world} ranks "
            f"need at least {least}"
        )


def check_same_images(dataset: Dataset, ranks: Ranks) -> None:
    """Whether every rank found the same data set, by its shapes and labels.

    Raises:
        InputError: not so.
    """
    labels = [part.labels.cpu().numpy().tobytes() for part in (dataset.train, dataset.test)]
    shapes = [tuple(part.images.shape) for part in (dataset.train, dataset.test)]
    digest = hashlib.sha256(repr((dataset.name, dataset.classes, shapes)).encode() + b"".join(labels)).hexdigest()
    for rank, other in enumerate(ranks.gather(digest)):
        if other != digest:
            raise InputError(
                f"rank {rank} finds other {dataset.name} images than rank {ranks.rank}; give every machine the same "
                "files under the same --data-dir"
            )


def spread(model: M, device: torch.device, ranks: Ranks) -> M:
    """The network for one of several ranks: rank 0's values everywhere, batch-norm over all ranks on GPUs.

    On CPUs every rank normalises its own part of the batch, for torch's SyncBatchNorm needs a GPU; running statistics
    are averaged on both (`Share.average`).
    """
    if ranks.world == 1:
        return model
    for tensor in model.state_dict().values():
        distributed.broadcast(tensor, src=0)
    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(model)  # replaces the layers inside
    return model


@dataclasses.dataclass(frozen=True)
class Share:
    """The part of one batch that this rank holds.

    Attributes:
        weight: its images over those of the batch; the weights of all ranks sum to 1.
        ranks: all of them must call every method.
    """

    weight: float
    ranks: Ranks

    @torch.no_grad()
    def average(self, model: nn.Module) -> None:
        """Replace gradients and running statistics by their mean over the ranks.

        Args:
            model: after the backward pass of a loss that is a mean over the rank's own images.
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
        """The mean over the batch of what is a mean over the rank's own images."""
        return float(total(torch.tensor(value * self.weight, dtype=torch.float64), self.ranks))


ALONE = Share(1.0, Ranks())


def total(sums: Tensor, ranks: Ranks) -> Tensor:
    """The sum of a CPU tensor over all ranks."""
    if ranks.world > 1:
        distributed.all_reduce(sums)
    return sums


def check_same(state: Mapping[str, Any], ranks: Ranks) -> None:
    """Whether every rank holds the same tensors, by a sum over their bits.

    Raises:
        RobustEdgeError: not so; what differs is named.
    """
    if ranks.world == 1:
        return
    gathered = ranks.gather({name: _checksum(value) for name, value in state.items()})
    for rank, sums in enumerate(gathered):
        differing = [name for name in state if sums.get(name) != gathered[0].get(name)]
        if differing:
            raise RobustEdgeError(
                f"rank {rank} holds another {', '.join(differing)} than rank 0; give all ranks the same kind of "
                "device and the same software, and go on with --resume"
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
