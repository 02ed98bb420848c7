"""Irregular pruning: any k weights may be kept.

Source: Marshall 2020, Eq. (6), S = {θ : ‖θ‖₀ ≤ k}. Projection keeps the k entries of largest magnitude.
"""

from __future__ import annotations

import dataclasses

from torch import Tensor, nn

from robust_edge.pruning.layout import layout_of
from robust_edge.pruning.prunable import budget_of
from robust_edge.pruning.schemes.counts import (
    counts_above,
    even_counts,
    floor_counts,
    floor_violation,
    granted_floors,
)
from robust_edge.pruning.schemes.macs import Macs
from robust_edge.pruning.schemes.scheme import FlooredScheme, Scheme, Support, Weights, largest
from robust_edge.pruning.schemes.scope import MACS, SCOPE
from robust_edge.settings.ranges import require
from robust_edge.settings.setting import declared, setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class Irregular(FlooredScheme):
    """Keep exactly k = round(keep × all) weights, by one global threshold or the same fraction in every layer.

    Deviations from the text: since a global threshold could remove all weights of a layer, `floor` keeps the largest
    weights of every layer, at least one, and the threshold applies to the others. Layers in `dense` keep all weights.

    Ties are broken by position, so that the count is exact.

    Attributes:
        dense: names of the layers that are not pruned; their weights count towards k.
    """

    scope: str = declared(SCOPE, "global")
    prune_depthwise: bool = setting(
        False,
        "whether scopes `global` and `layer` prune depthwise convolutions. Their filters have about nine weights and "
        "are the only path of a channel; at keep 0.1 most of them would become empty",
    )
    macs: float | None = declared(MACS, None)
    dense: frozenset[str] = dataclasses.field(default=frozenset(), compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.macs is None or self.scope == "macs", "pruning.macs", self.macs, "null unless pruning.scope is macs"
        )

    def build(self, model: nn.Module, shape: tuple[int, ...], keep: float) -> Scheme:
        """Set the floor and the layers that stay dense; scope `macs` returns a Macs scheme with the weights' costs."""
        floor = self.floor_at(keep)
        layout = layout_of(model, shape)
        if self.scope == "macs":
            return Macs(macs_per_weight=layout.macs_per_weight, share=self.macs, floor=floor)
        dense = frozenset[str]() if self.prune_depthwise else layout.depthwise
        return dataclasses.replace(self, floor=floor, dense=dense)

    @property
    def dense_layers(self) -> tuple[str, ...]:
        """The layers in `dense`, sorted."""
        return tuple(sorted(self.dense))

    def support_impl(self, weights: Weights, keep: float) -> dict[str, Tensor]:
        """Keep the k largest weights of the network, or the largest of each layer."""
        budget = budget_of(weights, keep)
        granted = granted_floors(weights, budget, self._floor, self.dense)
        if self.scope == "layer":
            free = {name: weight.numel() for name, weight in weights.items() if name not in self.dense}
            counts = granted | even_counts(free, budget - sum(granted[name] for name in self.dense))
        else:
            counts = counts_above(weights, budget, granted)
        return {name: largest(weight, counts[name]) for name, weight in weights.items()}

    @property
    def _floor(self) -> float:
        return self.least if self.scope == "global" else 0.0

    def violation(self, support: Support, keep: float) -> str | None:
        """Check the number of weights and the floors of the layers."""
        floors = floor_counts(support, self._floor, self.dense)
        return super().violation(support, keep) or floor_violation(support, floors)
