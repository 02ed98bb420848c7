"""Filter pruning: whole channels, which the export removes from the network."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from robust_edge.pruning.prunable import budget_of
from robust_edge.pruning.schemes.scheme import FlooredScheme, Support, Weights, kept_in
from robust_edge.pruning.schemes.scope import SCOPE
from robust_edge.settings.setting import declared
from robust_edge_exporters.compaction.channels import ChannelGroup
from robust_edge_runtimes.core.errors import InputError

SCOPE_OF_FILTERS = dataclasses.replace(
    SCOPE, choices={name: SCOPE.choices[name] for name in ("global", "layer")}, help="range of the threshold"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Filter(FlooredScheme):
    """Remove whole channels, with all weights that write or read them, until at most k weights are left.

    A channel is a set of weights that can be removed without changing the shapes of other layers: one output of a
    layer, the same output of all layers that are added to it and of depthwise convolutions behind it, and the inputs
    that read it. Outputs that are classes are never removed. The energy of a channel is the sum of squares of all its
    weights, so that within one group of channels the projection is the nearest point. For the comparison of groups the
    energies are divided by the mean of the group, since the norms of filters of different width are not comparable;
    this is the usual choice, but not a Euclidean projection.

    Scope `global` uses one threshold on the relative energy; scope `layer` removes the same fraction of every group.
    `floor` is the fraction of the channels of every group that is always kept, at least one channel.

    Attributes:
        groups: the channel groups of the network, from `channel_groups`.
    """

    scope: str = declared(SCOPE_OF_FILTERS, "global")
    groups: Sequence[ChannelGroup] = dataclasses.field(default=(), compare=False)

    def build(self, model: nn.Module, shape: tuple[int, ...], keep: float) -> Filter:
        """Set the floor and the channel groups of the network.

        Raises:
            InputError: it cannot be found out which channels go together.
        """
        from robust_edge_exporters.compaction.dependencies import channel_groups  # imports torch-pruning

        try:
            groups = channel_groups(model, shape)
        except Exception as cause:  # torch-pruning cannot follow every network of a user
            reason = " ".join(f"{type(cause).__name__}: {cause}".split())[:200]
            raise InputError(
                "pruning.scheme=filter removes channels together with all that read them, and torch-pruning cannot "
                f"find out which these are in this network ({reason}); choose another scheme, such as irregular"
            ) from cause
        return dataclasses.replace(self, floor=self.floor_at(keep), groups=groups)

    @property
    def dense_layers(self) -> tuple[str, ...]:
        """Layers of which no channel can be removed."""
        written = {part.parameter for group in self._removable for part in group.slices if part.dim == 0}
        fixed = [part.parameter for group in self.groups for part in group.slices if part.dim == 0]
        return tuple(sorted({name for name in fixed if name.endswith(".weight")} - written))

    @property
    def _removable(self) -> list[ChannelGroup]:
        return [group for group in self.groups if group.removable]

    def support_impl(self, weights: Weights, keep: float) -> dict[str, Tensor]:
        """Remove as few channels as possible, those of smallest energy first, so that at most k weights are left."""
        if not self.groups:
            raise InputError(
                "filter pruning removes channels of layers that are modules of torch, and this network has none, as "
                "one that was imported from ONNX; import its weights with their architecture (--arch), or choose "
                "another pruning.scheme"
            )
        budget = budget_of(weights, keep)
        order = self._order(weights)
        low, high = 0, len(order)
        fewest = self._support(order, weights)
        if kept_in(fewest) > budget:
            raise InputError(
                f"pruning.keep leaves {budget} weights, but the smallest network that filter pruning allows (one "
                f"channel or a fraction of {self.least:g} of each group, and all classes) has {kept_in(fewest)}; raise "
                "pruning.keep, or lower pruning.floor"
            )
        while low < high:
            middle = (low + high) // 2
            fits = kept_in(self._support(order[:middle], weights)) <= budget
            low, high = (low, middle) if fits else (middle + 1, high)
        return self._support(order[:low], weights)

    def support_beside(self, support: Support) -> dict[str, Tensor]:
        """Masks of batch-norm parameters and biases, so that removed channels are exactly zero."""
        beside: dict[str, Tensor] = {}
        for group, removed in zip(self._removable, self._removed(support), strict=True):
            for part in group.slices:
                if part.parameter not in support:
                    size = int(part.index.max()) + 1
                    mask = beside.setdefault(part.parameter, torch.ones(size, dtype=torch.bool, device=removed.device))
                    mask[part.index[removed[part.channel].cpu()].to(mask.device)] = False
        return beside

    def violation(self, support: Support, keep: float) -> str | None:
        """Check the number of weights, the floor of each group, and that channels are kept or removed as a whole."""
        removed = self._removed(support)
        for group, channels in zip(self._removable, removed, strict=True):
            if int((~channels).sum()) < self._least(group):
                return (
                    f"{group.layer} keeps {int((~channels).sum())} channels; it must keep at least {self._least(group)}"
                )
        pairs = [(i, int(c)) for i, channels in enumerate(removed) for c in channels.nonzero().flatten()]
        whole = self._support(pairs, support)
        for name, mask in support.items():
            if not torch.equal(whole[name], mask):
                return f"{name} keeps only a part of a channel"
        kept, budget = kept_in(support), budget_of(support, keep)
        return None if kept <= budget else f"{kept} weights are kept; keep {keep:g} allows {budget}"

    def _least(self, group: ChannelGroup) -> int:
        return max(1, int(self.least * group.channels))

    def _order(self, weights: Weights) -> list[tuple[int, int]]:
        """(group index, channel) of all channels that may be removed, in increasing order of their score."""
        found: list[tuple[float, int, int]] = []
        for i, group in enumerate(self._removable):
            energy = channel_energy(group, weights)
            ranks = energy.argsort(stable=True)
            score = energy / energy.mean().clamp_min(1e-30)
            if self.scope == "layer":
                score = torch.empty_like(energy).scatter_(0, ranks, torch.arange(len(ranks)).to(energy) / len(ranks))
            weakest = ranks[: group.channels - self._least(group)]
            found += zip(score[weakest].tolist(), [i] * len(weakest), weakest.tolist(), strict=True)
        return [(i, channel) for _, i, channel in sorted(found)]

    def _support(self, removed: Sequence[tuple[int, int]], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Masks of the weights after the removal of these (group index, channel) pairs."""
        by_group: dict[int, list[int]] = {}
        for i, channel in removed:
            by_group.setdefault(i, []).append(channel)
        lines = {
            name: [torch.ones(size, dtype=torch.bool) for size in tensor.shape[:2]] for name, tensor in like.items()
        }
        for i, channels in by_group.items():
            group = self._removable[i]
            removed_here = torch.zeros(group.channels, dtype=torch.bool)
            removed_here[channels] = True
            for part in group.slices:
                if part.parameter in lines:
                    lines[part.parameter][part.dim][part.index[removed_here[part.channel]]] = False
        return {name: _outer(lines[name][0], lines[name][1], tensor) for name, tensor in like.items()}

    def _removed(self, support: Support) -> list[Tensor]:
        """For every removable group a bool per channel: True if no weight writes the channel."""
        found = []
        for group in self._removable:
            writers = [part for part in group.slices if part.dim == 0 and part.parameter in support]
            device = support[writers[0].parameter].device
            written = torch.zeros(group.channels, dtype=torch.bool, device=device)
            for part in writers:
                rows = support[part.parameter].flatten(1).any(1)
                written[part.channel[rows[part.index].cpu()].to(device)] = True
            found.append(~written)
        return found


def channel_energy(group: ChannelGroup, weights: Weights) -> Tensor:
    """Sum of squares of the weights of each channel; weights that both read and write channels count twice."""
    device = next(iter(weights.values())).device
    energy = torch.zeros(group.channels, device=device, dtype=torch.float64)
    for part in group.slices:
        if part.parameter in weights:
            squares = weights[part.parameter].double().square().transpose(0, part.dim).flatten(1).sum(1)
            energy.index_add_(0, part.channel.to(device), squares[part.index.to(device)])
    return energy


def _outer(rows: Tensor, columns: Tensor, like: Tensor) -> Tensor:
    mask = (rows[:, None] & columns[None, :]).to(like.device)
    return mask.view(*mask.shape, *[1] * (like.dim() - 2)).expand(like.shape).contiguous()
