"""Find the channel groups of a network from torch-pruning's dependency graph.

Source: Fang et al. 2023, "DepGraph: Towards Any Structural Pruning".
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
import torch_pruning
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch_pruning.dependency.group import Group

from robust_edge_exporters.compaction.channel_check import confirmed
from robust_edge_exporters.compaction.channels import (
    CONVOLUTIONS,
    LAYERS,
    ChannelGroup,
    Slice,
    is_depthwise,
)
from robust_edge_exporters.evaluation_mode import evaluation_mode

ITEMS = 100
"""Largest number of items of a group, as a multiple of the number of nodes: more are a circle."""


def channel_groups(model: nn.Module, shape: tuple[int, ...]) -> tuple[ChannelGroup, ...]:
    """Trace the network with one image.

    Args:
        model: the network; it is not changed.
        shape: (C, H, W).

    Returns:
        The groups, in no specified order.
    """
    frozen = [parameter for parameter in model.parameters() if not parameter.requires_grad]
    first = next(model.parameters())
    try:
        model.requires_grad_(True)  # torch-pruning follows autograd's graph
        with torch.enable_grad(), evaluation_mode(model):
            graph = torch_pruning.DependencyGraph().build_dependency(
                model, torch.zeros(1, *shape, device=first.device, dtype=first.dtype), verbose=False
            )
            with _bounded(ITEMS * len(graph.module2node)):
                groups = tuple(_groups(graph, model))
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)
    return confirmed(groups, model, shape)


@contextlib.contextmanager
def _bounded(items: int) -> Iterator[None]:
    """Raise RuntimeError for a group of more items: slices that are written in place give torch-pruning no end."""
    add = Group.add_dep

    def add_bounded(group: Any, dep: Any, idxs: Any) -> None:
        if len(group) > items:
            raise RuntimeError("its channels depend on each other in a circle")
        add(group, dep, idxs)

    Group.add_dep = add_bounded
    try:
        yield
    finally:
        Group.add_dep = add


def _groups(graph: Any, model: nn.Module) -> Iterator[ChannelGroup]:
    names = {module: name for name, module in model.named_modules()}
    shared = _shared(model)
    for group in graph.get_all_groups(root_module_types=[*LAYERS]):
        slices: list[Slice] = []
        removable = True
        for item in group:
            module = item.dep.target.module
            writes = graph.is_out_channel_pruning_fn(item.dep.handler)
            found = _slices(
                module, names.get(module, ""), writes, torch.tensor(item.idxs), torch.tensor(item.root_idxs)
            )
            removable &= found is not None and not any(part.parameter in shared for part in found)
            slices += found or ()
        root = group[0].dep.target.module
        removable &= any(part.dim == 1 for part in slices)
        yield ChannelGroup(names[root], len(group[0].idxs), tuple(slices), removable)


def _shared(model: nn.Module) -> set[str]:
    """The names of parameters that two modules have."""
    named = [(name, id(parameter)) for name, parameter in model.named_parameters(remove_duplicate=False)]
    places = Counter(place for _, place in named)
    return {name for name, place in named if places[place] > 1}


def _slices(module: Any, name: str, writes: bool, index: Tensor, channel: Tensor) -> list[Slice] | None:
    """The slices of a module's parameters that belong to a group's channels; None if they cannot be removed from it."""
    if isinstance(module, torch_pruning.ops._OutputOp):
        return None
    if isinstance(module, CONVOLUTIONS) and module.groups > 1:
        if not is_depthwise(module):
            return None
        writes = True  # a depthwise filter reads and writes one channel
    elif isinstance(module, _BatchNorm) and not module.affine:
        return None
    elif not isinstance(module, (*LAYERS, _BatchNorm)):
        parameters = [module] if isinstance(module, nn.Parameter) else list(module.parameters())
        return None if parameters else []
    dim = 0 if writes or isinstance(module, _BatchNorm) else 1
    owned = ["weight", "bias"] if dim == 0 else ["weight"]
    return [Slice(f"{name}.{p}", dim, index, channel) for p in owned if getattr(module, p) is not None]
