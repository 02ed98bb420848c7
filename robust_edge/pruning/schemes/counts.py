"""Numbers of weights that layers keep, from a total budget: in proportion, by a global threshold, and with floors."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from robust_edge.pruning.schemes.scheme import Support, Weights, highest, kept_per_layer
from robust_edge_runtimes.core.errors import InputError


def even_counts(sizes: Mapping[str, int], budget: int) -> dict[str, int]:
    """Divide the budget among the layers in proportion to their sizes, at least 1 each, by the largest remainders."""
    if budget < len(sizes):
        raise InputError(f"pruning.keep leaves {budget} weights for {len(sizes)} layers; raise pruning.keep")
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
    """Kept weights of each layer under one global threshold with a floor for each layer."""
    return counts_above(weights, budget, granted_floors(weights, budget, floor))


def counts_above(weights: Weights, budget: int, granted: Mapping[str, int]) -> dict[str, int]:
    """Kept weights of each layer: the `granted` largest ones, then the largest of all others by a global threshold."""
    free = {name: without_largest(weight, granted[name]) for name, weight in weights.items()}
    return counts_of_largest(free, budget, granted)


def counts_of_largest(scores: Mapping[str, Tensor], budget: int, granted: Mapping[str, int]) -> dict[str, int]:
    """Kept weights of each layer: the `granted` ones, and as many as it has among the largest scores of all layers."""
    free = budget - sum(granted.values())
    if not free:
        return dict(granted)
    chosen = highest(torch.cat(list(scores.values())), free)
    parts = chosen.split([len(values) for values in scores.values()])
    extra = torch.stack([part.sum() for part in parts]).tolist()
    return {name: granted[name] + more for name, more in zip(scores, extra, strict=True)}


def without_largest(weight: Tensor, count: int) -> Tensor:
    """The absolute values of a weight without the `count` largest."""
    magnitudes = weight.abs()
    return magnitudes[~highest(magnitudes, count)]


def floor_counts(weights: Weights, floor: float, dense: Collection[str] = ()) -> dict[str, int]:
    """Smallest number of weights that each layer keeps: a fraction, at least one; all weights for layers in `dense`."""
    return {
        name: weight.numel() if name in dense else max(1, int(floor * weight.numel()))
        for name, weight in weights.items()
    }


def granted_floors(weights: Weights, budget: int, floor: float, dense: Collection[str] = ()) -> dict[str, int]:
    """The floors of all layers, if the budget suffices for them.

    Raises:
        InputError: the sum of the floors exceeds the budget.
    """
    floors = floor_counts(weights, floor, dense)
    granted = sum(floors.values())
    if budget < granted:
        whole = f" ({len(dense)} depthwise layers dense)" if dense else ""
        remedy = ", or set pruning.prune_depthwise=true" if dense else ""
        raise InputError(
            f"pruning.keep leaves {budget} weights, but the floor of {len(floors)} layers{whole} needs {granted}; "
            f"raise pruning.keep or lower pruning.floor{remedy}"
        )
    return floors


def floor_violation(support: Support, floors: Mapping[str, int]) -> str | None:
    """An error message about the first layer below its floor; None if there is none."""
    for name, kept in kept_per_layer(support).items():
        if kept < floors[name]:
            return f"{name} keeps {kept} weights, its floor is {floors[name]}"
    return None
