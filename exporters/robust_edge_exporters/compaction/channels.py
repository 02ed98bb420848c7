"""Groups of channels that can only be removed together: of a layer, its batch-norm, additions, its readers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
LAYERS = (*CONVOLUTIONS, nn.Linear)
_TENSORS = ("weight", "bias", "running_mean", "running_var")


@dataclasses.dataclass(frozen=True, eq=False)
class Slice:
    """What the channels of a group own of one parameter.

    Attributes:
        parameter: its name.
        dim: 0, the layer writes the channels (or scales them); 1, it reads them.
        index: positions along `dim`.
        channel: which channel each position belongs to, shaped like `index`.
    """

    parameter: str
    dim: int
    index: Tensor
    channel: Tensor

    @property
    def layer(self) -> str:
        """The module that the parameter belongs to."""
        return self.parameter.rpartition(".")[0]


@dataclasses.dataclass(frozen=True, eq=False)
class ChannelGroup:
    """Channels of which each can be removed on its own, with all that belongs to it.

    Attributes:
        layer: one that writes them.
        channels: how many.
        slices: what belongs to them, prunable weights and everything else.
        removable: false where a channel is a class (no layer reads it), where modules other than convolutions, linear
            layers and affine batch-norms hold parameters for it, and where the network contradicts the graph.
    """

    layer: str
    channels: int
    slices: tuple[Slice, ...]
    removable: bool


def is_depthwise(layer: nn.Module) -> bool:
    """Whether a layer is a convolution that filters each channel on its own."""
    return isinstance(layer, CONVOLUTIONS) and 1 < layer.groups == layer.in_channels == layer.out_channels


def channel_axis(layer: nn.Module) -> int:
    """The axis of the channels in a layer's input and output."""
    return -1 if isinstance(layer, nn.Linear) else 1


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Switch the network to evaluation mode; afterwards every module is in its own mode again."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@torch.no_grad()
def remove_channels(model: nn.Module, removed: Mapping[ChannelGroup, Tensor]) -> None:
    """Remove channels from the network in place; its groups are invalid afterwards.

    All at once and by our own indices, since torch-pruning computes wrong ones where a concatenation is pruned twice.

    Args:
        model: its layers get new parameters.
        removed: bool per channel of a group; a group that is not named keeps all.
    """
    removed_of: dict[str, dict[int, set[int]]] = {}
    for group, channels in removed.items():
        for part in group.slices:
            lines = removed_of.setdefault(part.layer, {}).setdefault(part.dim, set())
            lines |= set(part.index[channels[part.channel]].tolist())
    for name, dims in removed_of.items():
        layer = model.get_submodule(name)
        for dim, lines in dims.items():
            kept = torch.tensor([i for i in range(_size(layer, dim)) if i not in lines])
            for owned in _TENSORS if dim == 0 else ("weight",):
                tensor = getattr(layer, owned, None)
                if tensor is not None:
                    smaller = tensor.detach().index_select(dim, kept.to(tensor.device))
                    is_parameter = isinstance(tensor, nn.Parameter)
                    setattr(layer, owned, nn.Parameter(smaller, tensor.requires_grad) if is_parameter else smaller)
            _resize(layer, dim, len(kept))


def _size(layer: nn.Module, dim: int) -> int:
    return int(layer.get_parameter("weight").shape[dim])


def _resize(layer: Any, dim: int, size: int) -> None:
    """Set the attributes of a layer that hold its number of channels."""
    if isinstance(layer, _BatchNorm):
        layer.num_features = size
    elif isinstance(layer, nn.Linear):
        setattr(layer, "out_features" if dim == 0 else "in_features", size)
    elif layer.groups > 1:
        layer.groups = layer.in_channels = layer.out_channels = size
    else:
        setattr(layer, "out_channels" if dim == 0 else "in_channels", size)
