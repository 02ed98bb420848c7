"""Irregular pruning: any k weights may stay.

Source: Marshall 2020, Eq. (6), S = {θ : ‖θ‖₀ ≤ k}. Projection keeps the k entries of largest magnitude.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor

from robust_edge.pruning.prunable import budget_of
from robust_edge.pruning.schemes.scheme import Scheme, Support, Weights, highest, kept_per_layer, largest
from robust_edge_runtimes.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Irregular(Scheme):
    """Exactly k = round(keep × all) weights stay, under one threshold or the same fraction everywhere.

    Deviation from the text: a global threshold can empty a layer and so cut the network in two; `floor`
    keeps the largest weights of every layer, at least one, before the threshold is set.

    Ties are broken by position, so the count is exact.

    Attributes:
        scope: `global`, one threshold; `layer`, the same fraction everywhere.
        floor: fraction of every layer that stays in any case, under a global threshold.
    """

    scope: str = "global"
    floor: float = 0.0

    def support_impl(self, weights: Weights, keep: float) -> dict[str, Tensor]:
        """The k largest, or each layer's share of them."""
        budget = budget_of(weights, keep)
        counts = even_counts(weights, budget) if self.scope == "layer" else global_counts(weights, budget, self.floor)
        return {name: largest(weight, counts[name]) for name, weight in weights.items()}

    def violation(self, support: Support, keep: float) -> str | None:
        """The count, and the layers' floors."""
        floors = floor_counts(support, self.floor if self.scope == "global" else 0.0)
        return super().violation(support, keep) or floor_violation(support, floors)


def even_counts(weights: Weights, budget: int) -> dict[str, int]:
    """Shares of the budget in proportion to size, each at least 1, by largest remainder."""
    sizes = {name: weight.numel() for name, weight in weights.items()}
    if budget < len(sizes):
        raise InputError(f"keep leaves {budget} weights for {len(sizes)} layers; raise --keep")
    total = sum(sizes.values())
    exact = {name: budget * size / total for name, size in sizes.items()}
    counts = {name: max(1, int(share)) for name, share in exact.items()}
    by_remainder = sorted(sizes, key=lambda name: counts[name] - exact[name])
    missing = budget - sum(counts.values())
    while missing:
        for name in by_remainder if missing > 0 else reversed(by_remainder):
            step = (missing > 0) - (missing < 0)
            if step and 1 <= counts[name] + step <= sizes[name]:
                counts[name] += step
                missing -= step
    return counts


def global_counts(weights: Weights, budget: int, floor: float) -> dict[str, int]:
    """How many each layer keeps under one threshold, its floor already granted."""
    floors = granted_floors(weights, budget, floor)
    free = {name: beyond(weight, floors[name]) for name, weight in weights.items()}
    return counts_of_largest(free, budget, floors)


def counts_of_largest(scores: Mapping[str, Tensor], budget: int, granted: Mapping[str, int]) -> dict[str, int]:
    """What each layer has of the budget's largest scores, on top of what it was granted."""
    chosen = torch.cat(list(scores.values())).topk(budget - sum(granted.values()), sorted=False).indices
    ends = torch.tensor([len(values) for values in scores.values()], device=chosen.device).cumsum(0)
    layer = torch.searchsorted(ends, chosen, right=True)
    extra = torch.bincount(layer, minlength=len(scores)).tolist()
    return {name: granted[name] + more for name, more in zip(scores, extra, strict=True)}


def beyond(weight: Tensor, count: int) -> Tensor:
    """Absolute values without the `count` largest."""
    magnitudes = weight.abs()
    return magnitudes[~highest(magnitudes, count)]


def floor_counts(weights: Weights, floor: float) -> dict[str, int]:
    """What no threshold may take from a layer: a fraction of it, at least one weight."""
    return {name: max(1, int(floor * weight.numel())) for name, weight in weights.items()}


def granted_floors(weights: Weights, budget: int, floor: float) -> dict[str, int]:
    """The floors, if the budget has room for them.

    Raises:
        InputError: it has not.
    """
    floors = floor_counts(weights, floor)
    granted = sum(floors.values())
    if budget < granted:
        raise InputError(
            f"keep leaves {budget} weights, but the floor of {len(floors)} layers takes {granted}; raise --keep "
            "or lower pruning.floor"
        )
    return floors


def floor_violation(support: Support, floors: Mapping[str, int]) -> str | None:
    """The first layer below its floor, in words."""
    for name, kept in kept_per_layer(support).items():
        if kept < floors[name]:
            return f"{name} keeps {kept} weights, its floor is {floors[name]}"
    return None
