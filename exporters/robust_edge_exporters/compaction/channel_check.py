"""Whether channels really go where the dependency graph says, seen in the network itself.

Every convolution and linear layer hands on the same number everywhere, whatever it is given. One channel of every group
is spoilt where it is written, by NaN, which passes through batch-norm, activation, addition, pooling and depthwise
filters, but not through a layer that hands on a number of its own. So what each layer is given shows who reads the
spoilt channels, and at which positions; an operation that mixes channels shows, too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from robust_edge_exporters.compaction.channels import LAYERS, ChannelGroup, channel_axis, evaluating, is_depthwise

LOGITS = "the logits"
NUMBER = 0.5


def confirmed(groups: Sequence[ChannelGroup], model: nn.Module, shape: tuple[int, ...]) -> tuple[ChannelGroup, ...]:
    """The groups, those that the network itself contradicts no longer removable.

    The first, the middle and the last channel of all groups are tried together; only where that fails, group by group.

    Args:
        groups: of the network, by torch-pruning.
        model: left as it was.
        shape: (C, H, W).
    """
    removable = [group for group in groups if group.removable]
    shared = _shared(removable)
    if not shared and _agree(removable, model, shape):
        return tuple(groups)
    wrong = shared | {group for group in removable if not _agree([group], model, shape)}
    return tuple(dataclasses.replace(group, removable=group.removable and group not in wrong) for group in groups)


def _shared(groups: Sequence[ChannelGroup]) -> set[ChannelGroup]:
    """Groups that claim the same place of a parameter; they are parts of one, and must not be taken apart."""
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
    return all(_spoilt(groups, place, model, shape) == _expected(groups, place) for place in (0.0, 0.5, 1.0))


def _chosen(group: ChannelGroup, place: float) -> int:
    return round(place * (group.channels - 1))


def _expected(groups: Sequence[ChannelGroup], place: float) -> dict[str, set[int]]:
    """Layer to the positions of its input that read the chosen channels, as the groups say."""
    found: dict[str, set[int]] = {}
    for group in groups:
        for part in group.slices:
            if part.dim == 1:
                positions = part.index[part.channel == _chosen(group, place)].tolist()
                found.setdefault(part.layer, set()).update(positions)
    return {name: positions for name, positions in found.items() if positions}


@torch.no_grad()
def _spoilt(
    groups: Sequence[ChannelGroup], place: float, model: nn.Module, shape: tuple[int, ...]
) -> dict[str, set[int]]:
    """The same, as the network shows it; positions of the logits under a name of their own."""
    lines: dict[str, list[int]] = {}
    for group in groups:
        for part in group.slices:
            if part.dim == 0 and part.parameter.endswith(".weight"):
                lines.setdefault(part.layer, []).extend(part.index[part.channel == _chosen(group, place)].tolist())
    found: dict[str, set[int]] = {}

    def look(name: str, axis: int) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda _, given: found.setdefault(name, set()).update(_nan_positions(given[0], axis))

    def hand_on(name: str, axis: int) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        spoilt = torch.tensor(lines.get(name, []), dtype=torch.long)
        return lambda _, given, output: torch.full_like(output, NUMBER).index_fill(
            axis, spoilt.to(output.device), torch.nan
        )

    hooks: list[RemovableHandle] = []
    for name, layer in model.named_modules():
        if isinstance(layer, LAYERS) and not is_depthwise(layer):
            axis = channel_axis(layer)
            hooks.append(layer.register_forward_pre_hook(look(name, axis)))
            hooks.append(layer.register_forward_hook(hand_on(name, axis)))
    first = next(model.parameters())
    try:
        with evaluating(model):
            logits = model(torch.full((1, *shape), NUMBER, device=first.device, dtype=first.dtype))
    finally:
        for hook in hooks:
            hook.remove()
    found[LOGITS] = _nan_positions(logits, 1)
    return {name: positions for name, positions in found.items() if positions}


def _nan_positions(values: Tensor, axis: int) -> set[int]:
    lines = values.isnan().movedim(axis, 0).flatten(1).any(1)
    return set(lines.nonzero().flatten().tolist())
