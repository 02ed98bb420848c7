"""Groups of channels that are removed together from all layers that write, normalise, add or read them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
LAYERS = (*CONVOLUTIONS, nn.Linear)
_TENSORS = ("weight", "bias", "running_mean", "running_var")


@dataclasses.dataclass(frozen=True, eq=False)
class Slice:
    """The part of one parameter that belongs to the channels of a group.

    Attributes:
        parameter: name of the parameter.
        dim: 0 if the layer writes (or normalises) the channels, 1 if it reads them.
        index: positions along `dim`.
        channel: the channel of each position, shaped like `index`.
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
    """Channels that can be removed one by one, each with its parts of several layers.

    Attributes:
        layer: name of a layer that writes the channels.
        channels: number of channels.
        slices: the parts of all parameters that belong to the channels: weights, biases, batch-norm tensors.
        removable: False if the channels are classes (no layer reads them), if other modules than convolutions, linear
            layers and affine batch norms have parameters for them, or if the network contradicts the graph.
    """

    layer: str
    channels: int
    slices: tuple[Slice, ...]
    removable: bool


def is_depthwise(layer: nn.Module) -> bool:
    """Whether a layer is a depthwise convolution."""
    return isinstance(layer, CONVOLUTIONS) and 1 < layer.groups == layer.in_channels == layer.out_channels


def channel_axis(layer: nn.Module) -> int:
    """The axis of the channels in a layer's input and output."""
    return -1 if isinstance(layer, nn.Linear) else 1


@torch.no_grad()
def remove_channels(model: nn.Module, removed: Mapping[ChannelGroup, Tensor]) -> None:
    """Remove channels from the network in place; the groups are invalid afterwards.

    All channels are removed at once and by the indices in the groups, since torch-pruning computes wrong indices if a
    concatenation is pruned twice.

    Args:
        model: the network.
        removed: bool per channel, by group; groups that are missing keep all channels.
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
