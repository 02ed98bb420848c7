"""Filter pruning: whole channels, which the export takes out of the network."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from robust_edge.pruning.prunable import budget_of
from robust_edge.pruning.schemes.scheme import FlooredScheme, Support, Weights, kept_in
from robust_edge.pruning.settings import SCOPE
from robust_edge.settings.setting import declared
from robust_edge_exporters.compaction.channels import ChannelGroup
from robust_edge_runtimes.core.errors import InputError

SCOPE_OF_FILTERS = dataclasses.replace(
    SCOPE, choices={name: SCOPE.choices[name] for name in ("global", "layer")}, help="where the threshold holds"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Filter(FlooredScheme):
    """Removes whole channels, with all weights that write or read them, until at most k weights are left.

    A channel is a set of weights that can be removed from the network without changing a shape elsewhere: an
    output of a layer, of all layers that are added to it, of the depthwise convolutions between; and the inputs that
    read it. The classes are never removed. The energy of a channel is that of all its weights, so within one group
    the projection is the nearest point. Across groups energies are divided by the group's mean, since the norms of
    filters of different width are not comparable; that is the customary choice and no Euclidean projection.

    With scope `global` there is one threshold of relative energy; scope `layer` takes the same fraction of every
    group. `floor` is the fraction of every group's channels that are kept in any case, at least one.

    Attributes:
        groups: the network's, from `channel_groups`.
    """

    scope: str = declared(SCOPE_OF_FILTERS, "global")
    groups: Sequence[ChannelGroup] = dataclasses.field(default=(), compare=False)

    def build(self, model: nn.Module, shape: tuple[int, ...], keep: float) -> Filter:
        """With the channels of the network that can only be removed together."""
        from robust_edge_exporters.compaction.dependencies import channel_groups  # brings a package of its own

        return dataclasses.replace(self, floor=self.floor_at(keep), groups=channel_groups(model, shape))

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
        """Removes as few channels as possible, the weakest first, so that at most k weights are left."""
        budget = budget_of(weights, keep)
        order = self._order(weights)
        low, high = 0, len(order)
        fewest = self._support(order, weights)
        if kept_in(fewest) > budget:
            raise InputError(
                f"keep leaves {budget} weights, but with the fewest channels that may stay (1 or {self.least:g} of "
                f"each group, and all classes) {kept_in(fewest)} are left; filter pruning would remove a whole layer: "
                "raise --keep, or lower pruning.floor"
            )
        while low < high:
            middle = (low + high) // 2
            fits = kept_in(self._support(order[:middle], weights)) <= budget
            low, high = (low, middle) if fits else (middle + 1, high)
        return self._support(order[:low], weights)

    def support_beside(self, support: Support) -> dict[str, Tensor]:
        """Masks of the batch-norms and biases of removed channels, so that the removed channels are exactly zero."""
        beside: dict[str, Tensor] = {}
        for group, removed in zip(self._removable, self._removed(support), strict=True):
            for part in group.slices:
                if part.parameter not in support:
                    size = int(part.index.max()) + 1
                    mask = beside.setdefault(part.parameter, torch.ones(size, dtype=torch.bool, device=removed.device))
                    mask[part.index[removed[part.channel].cpu()].to(mask.device)] = False
        return beside

    def violation(self, support: Support, keep: float) -> str | None:
        """Checks the count, the least channels of each group, and that channels are kept or removed whole."""
        removed = self._removed(support)
        for group, channels in zip(self._removable, removed, strict=True):
            if int((~channels).sum()) < self._least(group):
                return f"{group.layer} keeps {int((~channels).sum())} channels, at least {self._least(group)} stay"
        pairs = [(i, int(c)) for i, channels in enumerate(removed) for c in channels.nonzero().flatten()]
        whole = self._support(pairs, support)
        for name, mask in support.items():
            if not torch.equal(whole[name], mask):
                return f"{name} keeps a part of a channel"
        kept, budget = kept_in(support), budget_of(support, keep)
        return None if kept <= budget else f"{kept} weights are kept, keep {keep:g} allows {budget}"

    def _least(self, group: ChannelGroup) -> int:
        return max(1, int(self.least * group.channels))

    def _order(self, weights: Weights) -> list[tuple[int, int]]:
        """(group, channel) of all channels that may be removed, the weakest first."""
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
        """Masks of the weights without these channels."""
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
        """For every removable group a bool per channel: true where no weight writes the channel."""
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
    """Sum of squares of all weights of each channel; one that both reads and writes counts twice."""
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
