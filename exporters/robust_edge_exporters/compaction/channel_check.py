"""Checks that channels flow through the network as its dependency graph says, by running the network.

The output of every convolution and linear layer is replaced by a constant. One channel of every group is set to NaN in
the output of the layers that write it. NaN passes through batch-norm, activation, addition, pooling and depthwise
filters, but not through a layer whose output is replaced. So the inputs of each layer show which layers read the marked
channels, and at which positions; an operation that mixes channels shows as well.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from robust_edge_exporters.compaction.channels import LAYERS, ChannelGroup, channel_axis, is_depthwise
from robust_edge_exporters.evaluation_mode import evaluation_mode

LOGITS = "the logits"
CONSTANT = 0.5


def confirmed(groups: Sequence[ChannelGroup], model: nn.Module, shape: tuple[int, ...]) -> tuple[ChannelGroup, ...]:
    """The groups, with `removable` set to False for those that contradict the network.

    The first, the middle and the last channel of all groups are checked in one pass each; if that fails, every group is
    checked alone.

    Args:
        groups: the groups that torch-pruning finds in the network.
        model: the network; it is not changed.
        shape: (C, H, W).
    """
    removable = [group for group in groups if group.removable]
    shared = _overlapping(removable)
    if not shared and _agree(removable, model, shape):
        return tuple(groups)
    wrong = shared | {group for group in removable if not _agree([group], model, shape)}
    return tuple(dataclasses.replace(group, removable=group.removable and group not in wrong) for group in groups)


def _overlapping(groups: Sequence[ChannelGroup]) -> set[ChannelGroup]:
    """Groups that contain the same position of a parameter; they are parts of one group and not removable."""
    owners: dict[tuple[str, int, int], ChannelGroup] = {}
    found: set[ChannelGroup] = set()
    for group in groups:
        for part in group.slices:
            for position in part.index.tolist():
                owner = owners.setdefault((part.parameter, part.dim, position), group)
                if owner is not group:
                    found |= {owner, group}
    return found


def _agree(groups: Sequence[ChannelGroup], model: nn.Module, shape: tuple[int, ...]) -> bool:
    return all(
        _observed_readers(groups, place, model, shape) == _expected_readers(groups, place) for place in (0.0, 0.5, 1.0)
    )


def _chosen(group: ChannelGroup, place: float) -> int:
    return round(place * (group.channels - 1))


def _expected_readers(groups: Sequence[ChannelGroup], place: float) -> dict[str, set[int]]:
    """The input positions of each layer that read the chosen channels according to the groups, by layer."""
    found: dict[str, set[int]] = {}
    for group in groups:
        for part in group.slices:
            if part.dim == 1:
                positions = part.index[part.channel == _chosen(group, place)].tolist()
                found.setdefault(part.layer, set()).update(positions)
    return {name: positions for name, positions in found.items() if positions}


@torch.no_grad()
def _observed_readers(
    groups: Sequence[ChannelGroup], place: float, model: nn.Module, shape: tuple[int, ...]
) -> dict[str, set[int]]:
    """The input positions of each layer that receive NaN; positions of NaN in the logits have the key LOGITS."""
    written: dict[str, list[int]] = {}
    for group in groups:
        for part in group.slices:
            if part.dim == 0 and part.parameter.endswith(".weight"):
                written.setdefault(part.layer, []).extend(part.index[part.channel == _chosen(group, place)].tolist())
    found: dict[str, set[int]] = {}

    def record_input(name: str, axis: int) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda _, inputs: found.setdefault(name, set()).update(_nan_positions(inputs[0], axis))

    def replace_output(name: str, axis: int) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        marked = torch.tensor(written.get(name, []), dtype=torch.long)
        return lambda _, inputs, output: torch.full_like(output, CONSTANT).index_fill(
            axis, marked.to(output.device), torch.nan
        )

    hooks: list[RemovableHandle] = []
    for name, layer in model.named_modules():
        if isinstance(layer, LAYERS) and not is_depthwise(layer):
            axis = channel_axis(layer)
            hooks.append(layer.register_forward_pre_hook(record_input(name, axis)))
            hooks.append(layer.register_forward_hook(replace_output(name, axis)))
    first = next(model.parameters())
    try:
        with evaluation_mode(model):
            logits = model(torch.full((1, *shape), CONSTANT, device=first.device, dtype=first.dtype))
    finally:
        for hook in hooks:
            hook.remove()
    found[LOGITS] = _nan_positions(logits, 1)
    return {name: positions for name, positions in found.items() if positions}


def _nan_positions(values: Tensor, axis: int) -> set[int]:
    marked = values.isnan().movedim(axis, 0).flatten(1).any(1)
    return set(marked.nonzero().flatten().tolist())
