"""n:m pruning: at most n of m neighbours along the input channels, as sparse tensor cores read them.

Source: Mishra et al. 2021, "Accelerating Sparse Deep Neural Networks", section 4 (2:4).
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from robust_edge.pruning.layout import Layout, layout_of
from robust_edge.pruning.prunable import budget_of
from robust_edge.pruning.schemes.counts import counts_of_largest, floor_counts, without_largest
from robust_edge.pruning.schemes.scheme import FlooredScheme, Support, Weights, highest
from robust_edge.settings.ranges import require
from robust_edge.settings.setting import setting
from robust_edge_runtimes.core.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class NOfM(FlooredScheme):
    """Keep exactly k weights, at most n of every m neighbours along the input channels.

    Both constraints hold: a keep of n/m is the plain pattern, a smaller one removes further weights by one global
    threshold, a larger one is an error. Since the constraints are nested, keeping the largest weights first in each
    group and then in total gives the nearest point.

    Grouped convolutions and the first layer stay dense: GPUs do not support 2:4 for grouped convolutions, and the
    image has fewer than four channels.

    `floor` applies to all other layers if a threshold is used.

    Attributes:
        dense: names of the layers that stay dense.
    """

    n: int = setting(2, "largest number of weights kept of m neighbours along the input channels", range="[1, inf)")
    m: int = setting(4, "number of neighbours in a group", range="[2, inf)")
    dense: frozenset[str] = dataclasses.field(default=frozenset(), compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.n < self.m, "pruning.n", self.n, f"at least 1 and below pruning.m ({self.m}), as in 2:4")

    def build(self, model: nn.Module, shape: tuple[int, ...], keep: float) -> NOfM:
        """Set the floor and the layers that stay dense."""
        dense = dense_by_layout(layout_of(model, shape))
        return dataclasses.replace(self, floor=self.floor_at(keep), dense=dense)

    @property
    def dense_layers(self) -> tuple[str, ...]:
        """Grouped convolutions and the first layer, sorted."""
        return tuple(sorted(self.dense))

    def support_impl(self, weights: Weights, keep: float) -> dict[str, Tensor]:
        """Keep the n largest weights of each group, and of these the k largest in total."""
        pattern = {name: self._pattern(name, weight) for name, weight in weights.items()}
        sizes = {name: int(mask.sum()) for name, mask in pattern.items()}
        counts = self._counts(weights, pattern, sizes, keep)
        return {
            name: highest(weight.abs().masked_fill(~pattern[name], -1), counts[name])
            for name, weight in weights.items()
        }

    def violation(self, support: Support, keep: float) -> str | None:
        """Check the number of weights and every group."""
        for name, mask in support.items():
            if name in self.dense:
                if not mask.all():
                    return f"{name} is not dense"
            elif int(_groups(mask, self.m).sum(-1).max()) > self.n:
                return f"{name} keeps more than {self.n} of {self.m} neighbours"
        return super().violation(support, keep)

    def _pattern(self, name: str, weight: Tensor) -> Tensor:
        if name in self.dense:
            return torch.ones_like(weight, dtype=torch.bool)
        if weight.shape[1] % self.m:
            raise InputError(
                f"{name} reads {weight.shape[1]} channels, which groups of {self.m} do not divide; choose another "
                "pruning.m, a width that it divides, or the pruning.scheme irregular"
            )
        rows = _groups(weight.abs(), self.m)
        order = rows.sort(dim=-1, descending=True, stable=True).indices
        kept = torch.zeros_like(rows, dtype=torch.bool).scatter_(-1, order[..., : self.n], True)
        return kept.flatten(-2).movedim(-1, 1).reshape(weight.shape)

    def _counts(self, weights: Weights, pattern: Support, sizes: dict[str, int], keep: float) -> dict[str, int]:
        budget, most = budget_of(weights, keep), sum(sizes.values())
        total = sum(weight.numel() for weight in weights.values())
        if budget > most:
            raise InputError(
                f"{self.n}:{self.m} keeps at most {most / total:.2%} of the weights ({len(self.dense)} layer(s) that "
                f"it does not apply to stay dense), pruning.keep is {keep:g}; lower it, or change pruning.n and "
                "pruning.m"
            )
        floors = floor_counts(weights, self.least)
        granted = {name: size if name in self.dense else min(size, floors[name]) for name, size in sizes.items()}
        if budget < sum(granted.values()):
            raise InputError(
                f"pruning.keep leaves {budget} weights, but {len(self.dense)} dense layers and the floor of the others "
                f"take {sum(granted.values())}; raise pruning.keep, lower pruning.floor, or set pruning.scheme to "
                "irregular"
            )
        free = {name: without_largest(weight[pattern[name]], granted[name]) for name, weight in weights.items()}
        return counts_of_largest(free, budget, granted)


def dense_by_layout(layout: Layout) -> frozenset[str]:
    """The layers that the n:m pattern does not apply to."""
    return layout.grouped | layout.inputs_first | {layout.stem}


def _groups(weight: Tensor, m: int) -> Tensor:
    """(O, I, ...) to (O, ..., I/m, m)."""
    channels_last = weight.movedim(1, -1)
    return channels_last.reshape(*channels_last.shape[:-1], -1, m)
