"""Block pruning: a few consecutive input channels of one output channel and tap are kept or removed together.

An integer dot product multiplies four bytes at once, so that a weight that is alone in its four costs as much as four.
With whole blocks no product is wasted.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from robust_edge.pruning.layout import layout_of
from robust_edge.pruning.prunable import budget_of, prunable_parameters
from robust_edge.pruning.schemes.irregular import Irregular
from robust_edge.pruning.schemes.macs import Macs
from robust_edge.pruning.schemes.scheme import FlooredScheme, Scheme, Support, Weights, kept_in
from robust_edge.pruning.schemes.scope import MACS, SCOPE
from robust_edge.settings.ranges import require
from robust_edge.settings.setting import declared, setting
from robust_edge_runtimes.core.errors import InputError

SIZES = (2, 4, 8)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Block(FlooredScheme):
    """Keep as many whole blocks as k = round(keep × all) weights hold: those of largest ℓ2 norm.

    S = {θ : ‖θ‖₀ ≤ k, non-zeros in whole blocks}. All blocks have the same size, so that the nearest point keeps the
    blocks of largest norm. Fewer than `size` weights of k are not spent. The scopes, the floors and the order of
    ties are those of irregular pruning with a block in place of a weight.

    Layers whose number of input channels `size` does not divide stay dense, and their weights count towards k: the
    first layer, which reads an image, and depthwise convolutions, which read one channel. So do
    transposed convolutions.

    Attributes:
        dense: names of the layers that stay dense.
        costs: for scope `macs`: multiply-accumulates per weight and image of each layer, the dense ones included.
    """

    size: int = setting(4, "input channels in a block: 2, 4 or 8", range="[2, 8]")
    scope: str = declared(SCOPE, "global")
    macs: float | None = declared(MACS, None)
    dense: frozenset[str] = dataclasses.field(default=frozenset(), compare=False)
    costs: dict[str, int] = dataclasses.field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.size in SIZES, "pruning.size", self.size, "2, 4 or 8")
        require(
            self.macs is None or self.scope == "macs", "pruning.macs", self.macs, "null unless pruning.scope is macs"
        )

    def build(self, model: nn.Module, shape: tuple[int, ...], keep: float) -> Block:
        """Set the floor, the layers that stay dense and, for scope `macs`, what a weight of each layer costs."""
        layout = layout_of(model, shape)
        odd = (name for name, weight in prunable_parameters(model).items() if weight.shape[1] % self.size)
        dense = layout.inputs_first.union(odd)
        costs = layout.macs_per_weight if self.scope == "macs" else {}
        return dataclasses.replace(self, floor=self.floor_at(keep), dense=dense, costs=costs)

    @property
    def dense_layers(self) -> tuple[str, ...]:
        """The layers in `dense`, sorted."""
        return tuple(sorted(self.dense))

    def support_impl(self, weights: Weights, keep: float) -> dict[str, Tensor]:
        """Keep the dense layers, and of the others the blocks of largest norm."""
        norms = {
            name: blocks(weight, self.size).norm(dim=-1) for name, weight in weights.items() if name not in self.dense
        }
        if not norms:
            raise InputError(
                f"no layer reads a multiple of {self.size} channels; lower pruning.size, or set pruning.scheme to "
                "irregular"
            )
        budget = self._budget(weights, keep)
        share = budget / sum(norm.numel() for norm in norms.values())
        kept = self._over_blocks(weights, keep).support(norms, share)
        return {
            name: weights_of(kept[name], self.size) if name in kept else torch.ones_like(weight, dtype=torch.bool)
            for name, weight in weights.items()
        }

    def violation(self, support: Support, keep: float) -> str | None:
        """Check the number of weights, and that blocks are kept or removed as a whole."""
        for name, mask in support.items():
            if name in self.dense:
                if not mask.all():
                    return f"{name} is not dense"
            elif bool((blocks(mask, self.size).any(-1) != blocks(mask, self.size).all(-1)).any()):
                return f"{name} keeps only a part of a block of {self.size}"
        kept, budget = kept_in(support), budget_of(support, keep)
        exact = budget - self.size < kept <= budget
        return None if exact else f"{kept} weights are kept; keep {keep:g} requires {budget}, in whole blocks"

    def _budget(self, weights: Weights, keep: float) -> int:
        """The number of blocks to keep."""
        budget, dense = budget_of(weights, keep), sum(weights[name].numel() for name in self.dense)
        if budget < dense + self.size:
            raise InputError(
                f"pruning.keep leaves {budget} weights, but {len(self.dense)} layers whose input channels {self.size} "
                f"does not divide stay dense and take {dense}; raise pruning.keep, lower pruning.size, or set "
                "pruning.scheme to irregular"
            )
        return (budget - dense) // self.size

    def _over_blocks(self, weights: Weights, keep: float) -> Scheme:
        """The scheme that chooses blocks, each by its norm, as if a block were a weight."""
        if self.scope != "macs":
            return Irregular(scope=self.scope, floor=self.least)
        needed = {name: self.costs[name] * weight.numel() for name, weight in weights.items()}
        dense = sum(needed[name] for name in self.dense)
        share = keep if self.macs is None else self.macs
        bound = share * sum(needed.values())
        if bound <= dense:
            raise InputError(
                f"pruning.macs allows {bound:.0f} multiply-accumulates, but {len(self.dense)} dense layers "
                f"need {dense}; raise pruning.macs, or choose another pruning.scope"
            )
        costs = {name: self.size * cost for name, cost in self.costs.items()}
        share = (bound - dense) / (sum(needed.values()) - dense)
        return Macs(macs_per_weight=costs, share=share, unit=f"blocks of {self.size}", floor=self.least)


def blocks(weight: Tensor, size: int) -> Tensor:
    """(O, I, ...) to (O, ..., I/size, size)."""
    channels_last = weight.movedim(1, -1)
    return channels_last.reshape(*channels_last.shape[:-1], -1, size)


def weights_of(kept: Tensor, size: int) -> Tensor:
    """Masks (O, ..., I/size) of blocks as masks (O, I, ...) of weights."""
    return kept.repeat_interleave(size, dim=-1).movedim(-1, 1).contiguous()
