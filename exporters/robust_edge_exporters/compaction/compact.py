"""Remove channels without effect before a network is exported; the outputs stay the same.

A channel has no effect if

- it is not read: all weights of all layers that read it are zero; or
- it is constant: all weights that write it are zero, so that after batch norm and activation it has the same value for
  every image. A constant c adds weight × c to the output of the layers that read it, which can be moved into their bias
  unless they use padding: padded positions are 0 instead of c, so the channel is then kept unless c is 0.

Scheme `filter` produces the first kind; any scheme may produce some of both.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from robust_edge_exporters.compaction.channels import (
    CONVOLUTIONS,
    LAYERS,
    ChannelGroup,
    Slice,
    channel_axis,
    remove_channels,
)
from robust_edge_exporters.compaction.dependencies import channel_groups
from robust_edge_exporters.compaction.in_blocks import weights_in_blocks, whole_blocks
from robust_edge_exporters.compaction.two_four import two_four_share
from robust_edge_exporters.evaluation_mode import evaluation_mode
from robust_edge_exporters.weight_uses import sparsity_of, weight_uses
from robust_edge_runtimes.core.manifest import Compaction, Sparsity

PROBES = 4
TOLERANCE = 1e-5  # relative to the largest logit, since sums of another length round differently
TWO_FOUR = 0.5  # from this share of 2:4 weights on, sparse tensor cores are worth keeping the pattern


@dataclasses.dataclass(frozen=True, eq=False)
class Compacted:
    """A network without the channels that had no effect.

    Attributes:
        model: the smaller copy, or the given network itself if no channel was removed.
        sparsity: its numbers of non-zero weights.
        record: sizes before and after; None if no channel was removed.
        notes: what was removed, or why nothing could be removed; one sentence each.
    """

    model: nn.Module
    sparsity: Sparsity
    record: Compaction | None = None
    notes: tuple[str, ...] = ()


def compact(
    model: nn.Module, shape: tuple[int, ...], sparsity: Sparsity, *, sparse_tensor_cores: bool = False, block: int = 1
) -> Compacted:
    """Remove all channels without effect.

    Args:
        model: the network, in evaluation mode and on the CPU; it is not changed.
        shape: (C, H, W).
        sparsity: the numbers of non-zero weights of the network.
        sparse_tensor_cores: whether the target is up to twice as fast with 2:4 weights. No channel is then removed if
            that would break the pattern and save less than half of the multiply-accumulates.
        block: the number of consecutive input channels that the kernels store and multiply as a whole. Single channels
            that go leave others in other blocks, so that only whole blocks of channels go if that leaves less to do.

    Returns:
        The smaller network, after a comparison of its outputs with those of the given network on random images.
    """
    try:
        small, removed = _fewest_blocks(
            (_without_idle_channels(model, shape, size) for size in sorted({1, block})), block
        )
    except Exception as cause:  # torch-pruning cannot trace every network of a user
        return Compacted(
            model, sparsity, notes=(_refusal(f"cannot be traced, or does not run without them: {_one_line(cause)}"),)
        )
    if not removed:
        return Compacted(model, sparsity)
    problem = _difference(model, small, shape)
    if problem is not None:
        return Compacted(model, sparsity, notes=(_refusal(problem),))
    macs, left = _macs(model, shape), _macs(small, shape)
    lost = share_of_two_four(small) < TWO_FOUR <= share_of_two_four(model)
    if sparse_tensor_cores and lost and 2 * left > macs:
        return Compacted(model, sparsity, notes=(_refusal("would lose its 2:4 pattern, which is worth more"),))
    before, after = _parameters(model), _parameters(small)
    record = Compaction(
        channels=removed,
        parameters=before,
        parameters_left=after,
        macs=macs,
        macs_left=left,
        bytes=4 * before,
        bytes_left=4 * after,
    )
    return Compacted(small, _counted(small, shape), record, (describe(record),))


def describe(record: Compaction) -> str:
    """The sizes before and after, in one sentence."""
    return (
        f"{record.channels} channels without effect were removed: parameters {record.parameters} → "
        f"{record.parameters_left}, multiply-accumulates {record.macs} → {record.macs_left}, size as dense fp32 "
        f"{record.bytes / 1e3:.0f} kB → {record.bytes_left / 1e3:.0f} kB."
    )


def share_of_two_four(model: nn.Module) -> float:
    """The fraction of a network's weights that are in the 2:4 pattern."""
    return two_four_share(weight.movedim(1, -1).numpy() for weight in _ungrouped(model))


def _ungrouped(model: nn.Module) -> Iterator[Tensor]:
    """The weights of the layers without groups."""
    for module in model.modules():
        if isinstance(module, LAYERS) and getattr(module, "groups", 1) == 1:
            yield module.weight.detach()


def _fewest_blocks(candidates: Iterable[tuple[nn.Module, int]], block: int) -> tuple[nn.Module, int]:
    """The candidate with the fewest weights in blocks with a non-zero, the first of equals."""
    return min(candidates, key=lambda candidate: weights_in_blocks(_ungrouped(candidate[0]), block))


def _without_idle_channels(model: nn.Module, shape: tuple[int, ...], block: int) -> tuple[nn.Module, int]:
    """A copy without channels that have no effect, and how many these were; removing some may free others.

    Only whole blocks of so many channels are removed.
    """
    small, removed = copy.deepcopy(model).requires_grad_(False), 0
    while True:
        groups = [group for group in channel_groups(small, shape) if group.removable]
        inputs = _inputs(small, shape)
        removable = {group: _idle_channels(group, small, inputs, block) for group in groups}
        count = sum(int(channels.sum()) for channels in removable.values())
        if not count:
            return small, removed
        remove_channels(small, removable)
        removed += count


def _idle_channels(group: ChannelGroup, model: nn.Module, inputs: dict[str, Tensor], block: int) -> Tensor:
    """Bool per channel: it has no effect after its constant was added to biases. At least one per group is kept."""
    unread = _has_zero_weights(group, model, dim=1)
    constant = _has_zero_weights(group, model, dim=0) & ~unread
    for channel in constant.nonzero().flatten().tolist():
        constant[channel] = _foldable(group, channel, model, inputs)
    removable = unread | constant
    if removable.all():
        removable[0] = False
    removable = whole_blocks(removable, block)
    for channel in (removable & constant).nonzero().flatten().tolist():
        _fold(group, channel, model, inputs)
    return removable


def _has_zero_weights(group: ChannelGroup, model: nn.Module, *, dim: int) -> Tensor:
    """Bool per channel: all weights that write it (`dim` 0) or read it (1) are zero.

    Depthwise filters are ignored, since they only pass on what an earlier layer writes.
    """
    parts = [part for part in _weights(group, model) if part.dim == dim]
    found = torch.full((group.channels,), bool(parts))
    for part in parts:
        lines = (_weight(part, model) != 0).transpose(0, dim).flatten(1).any(1)
        found[part.channel[lines[part.index]]] = False
    return found


def _weights(group: ChannelGroup, model: nn.Module) -> Iterator[Slice]:
    """The slices of weights of convolutions and linear layers in the group, without depthwise convolutions."""
    for part in group.slices:
        layer = model.get_submodule(part.layer)
        named = part.parameter.endswith(".weight") and isinstance(layer, LAYERS)
        if named and getattr(layer, "groups", 1) == 1:
            yield part


def _weight(part: Slice, model: nn.Module) -> Tensor:
    return model.get_parameter(part.parameter).detach()


def _foldable(group: ChannelGroup, channel: int, model: nn.Module, inputs: dict[str, Tensor]) -> bool:
    """Whether the input from this channel is constant, and can be added to the bias, in every layer that reads it."""
    for part in _weights(group, model):
        if part.dim != 1:
            continue
        name = part.layer
        values = _values(part, channel, inputs[name])
        if not (values == values[:, :1]).all():
            return False
        if values.any() and not _unpadded(model.get_submodule(name)):
            return False
    return True


def _fold(group: ChannelGroup, channel: int, model: nn.Module, inputs: dict[str, Tensor]) -> None:
    """Add the contribution of a constant channel to the bias of each layer that reads it."""
    for part in _weights(group, model):
        if part.dim != 1:
            continue
        name = part.layer
        constants = _values(part, channel, inputs[name])[:, 0]
        if constants.any():
            layer = model.get_submodule(name)
            weight = _weight(part, model)
            columns = weight[:, part.index[part.channel == channel]].reshape(len(weight), len(constants), -1).sum(2)
            added = columns @ constants
            bias = added if layer.bias is None else layer.bias.detach() + added  # type: ignore[operator]
            layer.bias = nn.Parameter(bias, requires_grad=False)


def _values(part: Slice, channel: int, inputs: Tensor) -> Tensor:
    """The inputs of a layer that belong to the channel: (inputs, values over images and positions)."""
    return inputs[part.index[part.channel == channel]]


def _unpadded(layer: nn.Module) -> bool:
    if isinstance(layer, nn.Linear):
        return True
    assert isinstance(layer, CONVOLUTIONS)
    if isinstance(layer.padding, str):
        return layer.padding == "valid" or all(size == 1 for size in layer.kernel_size)
    return not any(layer.padding)


@torch.no_grad()
def _inputs(model: nn.Module, shape: tuple[int, ...]) -> dict[str, Tensor]:
    """The inputs of every layer for random images, by name: (inputs, values over images and positions)."""
    found: dict[str, Tensor] = {}

    def recorder(name: str, axis: int) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def record(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            values = inputs[0].movedim(axis, 0).flatten(1)
            found[name] = torch.cat([found[name], values], 1) if name in found else values

        return record

    layers = [(name, module) for name, module in model.named_modules() if isinstance(module, LAYERS)]
    hooks = [m.register_forward_pre_hook(recorder(name, channel_axis(m))) for name, m in layers]
    with evaluation_mode(model):
        model(_probes(shape))
    for hook in hooks:
        hook.remove()
    return found


def _probes(shape: tuple[int, ...]) -> Tensor:
    return torch.rand(PROBES, *shape, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def _difference(model: nn.Module, small: nn.Module, shape: tuple[int, ...]) -> str | None:
    """A description of the difference between the outputs of both networks; None if they are equal."""
    images = _probes(shape)
    with evaluation_mode(model), evaluation_mode(small):
        expected = model(images)
        found = small(images)
    error = float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-12))
    return None if error <= TOLERANCE else f"computes something else without them (logits off by {error:.2g})"


def _parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@torch.no_grad()
def _macs(model: nn.Module, shape: tuple[int, ...]) -> int:
    with evaluation_mode(model), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, *shape))
    return int(counter.get_total_flops()) // 2


def _counted(model: nn.Module, shape: tuple[int, ...]) -> Sparsity:
    return sparsity_of({use.name: model.get_parameter(use.name) for use in weight_uses(model, shape).uses})


def _refusal(problem: str) -> str:
    return f"Channels without effect were not removed: the network {problem}."


def _one_line(cause: Exception) -> str:
    return " ".join(str(cause).split())[:200] or type(cause).__name__
