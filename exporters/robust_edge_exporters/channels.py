"""Channels that can only go together: one of a layer's outputs, its batch-norm, whatever is added to it, its readers.

Read off the network by torch-pruning's dependency graph (Fang et al. 2023, "DepGraph: Towards Any Structural
Pruning"), as plain indices into parameters.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch_pruning
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
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


@dataclasses.dataclass(frozen=True, eq=False)
class ChannelGroup:
    """Channels of which each can be removed on its own, with all that belongs to it.

    Attributes:
        layer: one that writes them.
        channels: how many.
        slices: what belongs to them, prunable weights and everything else.
        removable: false where a channel is a class (no layer reads it), or where something other than
            convolutions, linear layers and batch-norms with weights of their own holds numbers for it.
    """

    layer: str
    channels: int
    slices: tuple[Slice, ...]
    removable: bool


def channel_groups(model: nn.Module, shape: tuple[int, ...]) -> tuple[ChannelGroup, ...]:
    """Follow one image through the network.

    Args:
        model: left as it was.
        shape: (C, H, W).

    Returns:
        The groups, in no order that means anything.
    """
    modes = {module: module.training for module in model.modules()}
    frozen = [parameter for parameter in model.parameters() if not parameter.requires_grad]
    first = next(model.parameters())
    try:
        model.requires_grad_(True)  # it follows autograd's graph
        with torch.enable_grad():
            graph = torch_pruning.DependencyGraph().build_dependency(
                model, torch.zeros(1, *shape, device=first.device, dtype=first.dtype), verbose=False
            )
            return tuple(_groups(graph, model))
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)
        for module, mode in modes.items():
            module.training = mode


@torch.no_grad()
def take_out(model: nn.Module, gone: Mapping[ChannelGroup, Tensor]) -> None:
    """Remove channels from the network that the groups were read off, in place; the groups hold no longer.

    All at once and by our own indices: torch-pruning loses count of a concatenation that is pruned twice.

    Args:
        model: its layers get new parameters.
        gone: bool per channel of a group; a group that is not named keeps all.
    """
    lost: dict[str, dict[int, set[int]]] = {}
    for group, channels in gone.items():
        for part in group.slices:
            lines = lost.setdefault(part.parameter.rpartition(".")[0], {}).setdefault(part.dim, set())
            lines |= set(part.index[channels[part.channel]].tolist())
    for name, dims in lost.items():
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


def _groups(graph: Any, model: nn.Module) -> Iterator[ChannelGroup]:
    names = {module: name for name, module in model.named_modules()}
    for group in graph.get_all_groups(root_module_types=[*CONVOLUTIONS, nn.Linear]):
        slices: list[Slice] = []
        removable = True
        for item in group:
            module = item.dep.target.module
            writes = graph.is_out_channel_pruning_fn(item.dep.handler)
            found = _slices(
                module, names.get(module, ""), writes, torch.tensor(item.idxs), torch.tensor(item.root_idxs)
            )
            removable &= found is not None
            slices += found or ()
        root = group[0].dep.target.module
        removable &= any(part.dim == 1 for part in slices)
        yield ChannelGroup(names[root], len(group[0].idxs), tuple(slices), removable)


def _slices(module: Any, name: str, writes: bool, index: Tensor, channel: Tensor) -> list[Slice] | None:
    """What a module owns of a group's channels; None where they cannot be taken out of it."""
    if isinstance(module, torch_pruning.ops._OutputOp):
        return None
    if isinstance(module, CONVOLUTIONS) and module.groups > 1:
        if not module.groups == module.in_channels == module.out_channels:
            return None
        writes = True  # a depthwise filter reads and writes one channel
    elif isinstance(module, _BatchNorm) and not module.affine:
        return None
    elif not isinstance(module, (*CONVOLUTIONS, nn.Linear, _BatchNorm)):
        parameters = [module] if isinstance(module, nn.Parameter) else list(module.parameters())
        return None if parameters else []
    dim = 0 if writes or isinstance(module, _BatchNorm) else 1
    owned = ["weight", "bias"] if dim == 0 else ["weight"]
    return [Slice(f"{name}.{p}", dim, index, channel) for p in owned if getattr(module, p) is not None]


def _size(layer: nn.Module, dim: int) -> int:
    return int(layer.get_parameter("weight").shape[dim])


def _resize(layer: Any, dim: int, size: int) -> None:
    """Tell a layer how many channels it has now."""
    if isinstance(layer, _BatchNorm):
        layer.num_features = size
    elif isinstance(layer, nn.Linear):
        setattr(layer, "out_features" if dim == 0 else "in_features", size)
    elif layer.groups > 1:
        layer.groups = layer.in_channels = layer.out_channels = size
    else:
        setattr(layer, "out_channels" if dim == 0 else "in_channels", size)
