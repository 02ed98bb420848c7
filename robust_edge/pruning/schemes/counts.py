"""How many weights each layer keeps: shares of a budget, one threshold over all layers, and the layers' floors."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from robust_edge.pruning.schemes.scheme import Support, Weights, highest, kept_per_layer
from robust_edge_runtimes.core.errors import InputError


def even_counts(sizes: Mapping[str, int], budget: int) -> dict[str, int]:
    """The budget divided among the layers in proportion to their sizes, at least 1 each, by largest remainders."""
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
    """Numbers of weights that the layers keep under one threshold and with a floor for each."""
    return counts_above(weights, budget, granted_floors(weights, budget, floor))


def counts_above(weights: Weights, budget: int, granted: Mapping[str, int]) -> dict[str, int]:
    """Numbers of weights that the layers keep under one threshold, beside those already granted to them."""
    free = {name: beyond(weight, granted[name]) for name, weight in weights.items()}
    return counts_of_largest(free, budget, granted)


def counts_of_largest(scores: Mapping[str, Tensor], budget: int, granted: Mapping[str, int]) -> dict[str, int]:
    """How many of the largest scores over all layers each layer has, added to the number that it was granted."""
    chosen = torch.cat(list(scores.values())).topk(budget - sum(granted.values()), sorted=False).indices
    ends = torch.tensor([len(values) for values in scores.values()], device=chosen.device).cumsum(0)
    layer = torch.searchsorted(ends, chosen, right=True)
    extra = torch.bincount(layer, minlength=len(scores)).tolist()
    return {name: granted[name] + more for name, more in zip(scores, extra, strict=True)}


def beyond(weight: Tensor, count: int) -> Tensor:
    """Absolute values without the `count` largest."""
    magnitudes = weight.abs()
    return magnitudes[~highest(magnitudes, count)]


def floor_counts(weights: Weights, floor: float, dense: Collection[str] = ()) -> dict[str, int]:
    """Least number of weights of each layer: a fraction of it, at least one weight; all of a layer in `dense`."""
    return {
        name: weight.numel() if name in dense else max(1, int(floor * weight.numel()))
        for name, weight in weights.items()
    }


def granted_floors(weights: Weights, budget: int, floor: float, dense: Collection[str] = ()) -> dict[str, int]:
    """The floors of all layers, checked against the budget.

    Raises:
        InputError: their sum exceeds the budget.
    """
    floors = floor_counts(weights, floor, dense)
    granted = sum(floors.values())
    if budget < granted:
        whole = f" ({len(dense)} depthwise layers dense)" if dense else ""
        way = ", or set pruning.prune_depthwise=true" if dense else ""
        raise InputError(
            f"keep leaves {budget} weights, but the floor of {len(floors)} layers{whole} takes {granted}; raise --keep "
            f"or lower pruning.floor{way}"
        )
    return floors


def floor_violation(support: Support, floors: Mapping[str, int]) -> str | None:
    """An error message about the first layer below its floor; None if there is none."""
    for name, kept in kept_per_layer(support).items():
        if kept < floors[name]:
            return f"{name} keeps {kept} weights, its floor is {floors[name]}"
    return None
