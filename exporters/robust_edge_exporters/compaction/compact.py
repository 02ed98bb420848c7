"""Channels that do nothing are taken out of the network before it is exported, and its outputs stay the same.

A channel does nothing if

- nothing reads it: all weights of all layers that read it are zero; or
- it says the same whatever the image: all weights that write it are zero, so what is left of it after batch-norm and
  activation is a constant. A constant 0 adds nothing. Another one adds weight × constant to its readers, which is a
  bias, provided that they do not pad: a padded border is zero and not the constant, so there the channel stays.

Scheme `filter` makes the first kind on purpose; any other may leave some of both.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from robust_edge_exporters.compaction.channels import (
    CONVOLUTIONS,
    LAYERS,
    ChannelGroup,
    Slice,
    channel_axis,
    evaluating,
    take_out,
)
from robust_edge_exporters.compaction.dependencies import channel_groups
from robust_edge_exporters.compaction.two_four import two_four_share
from robust_edge_runtimes.core.manifest import Compaction, LayerCount, Sparsity

PROBES = 4
TOLERANCE = 1e-5  # of the largest logit; float sums of other lengths round otherwise
TWO_FOUR = 0.5  # share of the weights from which on a network counts as one for sparse tensor cores


@dataclasses.dataclass(frozen=True, eq=False)
class Compacted:
    """A network without the channels that did nothing.

    Attributes:
        model: a copy, or the very network that was given where nothing went.
        sparsity: its non-zeros.
        record: before and after; None where nothing went.
        notes: what went, or why channels that do nothing are still there; one sentence each.
    """

    model: nn.Module
    sparsity: Sparsity
    record: Compaction | None = None
    notes: tuple[str, ...] = ()


def compact(
    model: nn.Module, shape: tuple[int, ...], sparsity: Sparsity, *, sparse_tensor_cores: bool = False
) -> Compacted:
    """Take out every channel that does nothing.

    Args:
        model: in evaluation mode, on the CPU; left as it was.
        shape: (C, H, W).
        sparsity: of the network, returned where nothing goes.
        sparse_tensor_cores: the target gains from 2:4, half of the arithmetic at best; the network stays whole if its
            pattern would be lost for less than that.

    Returns:
        The smaller network, its outputs compared with the given one's on random images.
    """
    small = copy.deepcopy(model).requires_grad_(False)
    try:
        removed = _shrunk(small, shape)
    except Exception as cause:  # the network is the user's own, and torch-pruning cannot follow every one
        return Compacted(
            model, sparsity, notes=(_refusal(f"cannot be followed, or does not run without them: {_one_line(cause)}"),)
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
    return Compacted(small, _counted(small), record, (describe(record),))


def describe(record: Compaction) -> str:
    """Before and after, in one sentence."""
    return (
        f"{record.channels} channels that did nothing were taken out: {record.parameters} parameters became "
        f"{record.parameters_left}, {record.macs} multiply-accumulates {record.macs_left}, "
        f"{record.bytes / 1e3:.0f} kB as dense fp32 {record.bytes_left / 1e3:.0f} kB."
    )


def share_of_two_four(model: nn.Module) -> float:
    """The share of 2:4 in a network."""
    layers = [module for module in model.modules() if isinstance(module, LAYERS) and getattr(module, "groups", 1) == 1]
    return two_four_share(layer.weight.detach().movedim(1, -1).numpy() for layer in layers)


def _shrunk(model: nn.Module, shape: tuple[int, ...]) -> int:
    """Remove in place until nothing is left that does nothing; a removed reader may leave its writers unread."""
    removed = 0
    while True:
        groups = [group for group in channel_groups(model, shape) if group.removable]
        inputs = _inputs(model, shape)
        gone = {group: _idle(group, model, inputs) for group in groups}
        count = sum(int(channels.sum()) for channels in gone.values())
        if not count:
            return removed
        take_out(model, gone)
        removed += count


def _idle(group: ChannelGroup, model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    """Bool per channel: it does nothing, and its constant is already folded; at least one of the group stays."""
    unread = _all_zero(group, model, dim=1)
    silent = _all_zero(group, model, dim=0) & ~unread
    for channel in silent.nonzero().flatten().tolist():
        silent[channel] = _foldable(group, channel, model, inputs)
    gone = unread | silent
    if gone.all():
        gone[0] = False
    for channel in (gone & silent).nonzero().flatten().tolist():
        _fold(group, channel, model, inputs)
    return gone


def _all_zero(group: ChannelGroup, model: nn.Module, *, dim: int) -> Tensor:
    """Bool per channel: no weight of its writers (0) or its readers (1) is anything but zero.

    A depthwise filter reads and writes; it only passes on what is written before it.
    """
    parts = [part for part in _weights(group, model) if part.dim == dim]
    found = torch.full((group.channels,), bool(parts))
    for part in parts:
        lines = (_weight(part, model) != 0).transpose(0, dim).flatten(1).any(1)
        found[part.channel[lines[part.index]]] = False
    return found


def _weights(group: ChannelGroup, model: nn.Module) -> Iterator[Slice]:
    """Weights of convolutions and linear layers that write or read the group, no depthwise ones."""
    for part in group.slices:
        layer = model.get_submodule(part.layer)
        named = part.parameter.endswith(".weight") and isinstance(layer, LAYERS)
        if named and getattr(layer, "groups", 1) == 1:
            yield part


def _weight(part: Slice, model: nn.Module) -> Tensor:
    return model.get_parameter(part.parameter).detach()


def _foldable(group: ChannelGroup, channel: int, model: nn.Module, inputs: dict[str, Tensor]) -> bool:
    """Whether what the readers see of a channel is one number each, and adds up to a bias."""
    for part in _weights(group, model):
        if part.dim != 1:
            continue
        name = part.layer
        seen = _seen(part, channel, inputs[name])
        if not (seen == seen[:, :1]).all():
            return False
        if seen.any() and not _unpadded(model.get_submodule(name)):
            return False
    return True


def _fold(group: ChannelGroup, channel: int, model: nn.Module, inputs: dict[str, Tensor]) -> None:
    """Add to each reader's bias what the channel gives it."""
    for part in _weights(group, model):
        if part.dim != 1:
            continue
        name = part.layer
        constants = _seen(part, channel, inputs[name])[:, 0]
        if constants.any():
            layer = model.get_submodule(name)
            weight = _weight(part, model)
            columns = weight[:, part.index[part.channel == channel]].reshape(len(weight), len(constants), -1).sum(2)
            added = columns @ constants
            bias = added if layer.bias is None else layer.bias.detach() + added  # type: ignore[operator]
            layer.bias = nn.Parameter(bias, requires_grad=False)


def _seen(part: Slice, channel: int, given: Tensor) -> Tensor:
    """(inputs of the channel, values): what a reader was given, over images and positions."""
    return given[part.index[part.channel == channel]]


def _unpadded(layer: nn.Module) -> bool:
    if isinstance(layer, nn.Linear):
        return True
    assert isinstance(layer, CONVOLUTIONS)
    if isinstance(layer.padding, str):
        return layer.padding == "valid" or all(size == 1 for size in layer.kernel_size)
    return not any(layer.padding)


@torch.no_grad()
def _inputs(model: nn.Module, shape: tuple[int, ...]) -> dict[str, Tensor]:
    """What every layer is given for some random images: name to (inputs, values)."""
    found: dict[str, Tensor] = {}

    def watched(name: str, axis: int) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def remember(_: nn.Module, given: tuple[Tensor, ...]) -> None:
            values = given[0].movedim(axis, 0).flatten(1)
            found[name] = torch.cat([found[name], values], 1) if name in found else values

        return remember

    layers = [(name, module) for name, module in model.named_modules() if isinstance(module, LAYERS)]
    hooks = [m.register_forward_pre_hook(watched(name, channel_axis(m))) for name, m in layers]
    with evaluating(model):
        model(_probes(shape))
    for hook in hooks:
        hook.remove()
    return found


def _probes(shape: tuple[int, ...]) -> Tensor:
    return torch.rand(PROBES, *shape, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def _difference(model: nn.Module, small: nn.Module, shape: tuple[int, ...]) -> str | None:
    """How the smaller network differs, in words; None where it computes the same."""
    images = _probes(shape)
    with evaluating(model), evaluating(small):
        expected = model(images)
        found = small(images)
    error = float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-12))
    return None if error <= TOLERANCE else f"computes something else without them (logits off by {error:.2g})"


def _parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@torch.no_grad()
def _macs(model: nn.Module, shape: tuple[int, ...]) -> int:
    with evaluating(model), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, *shape))
    return int(counter.get_total_flops()) // 2


def _counted(model: nn.Module) -> Sparsity:
    layers = tuple(
        LayerCount(f"{name}.weight", module.weight.numel(), int(torch.count_nonzero(module.weight)))
        for name, module in model.named_modules()
        if isinstance(module, LAYERS)
    )
    return Sparsity.of_layers(layers)


def _refusal(problem: str) -> str:
    return f"Channels that do nothing were left in: the network {problem}."


def _one_line(cause: Exception) -> str:
    return " ".join(str(cause).split())[:200] or type(cause).__name__
