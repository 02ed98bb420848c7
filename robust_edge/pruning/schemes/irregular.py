"""Irregular pruning: any k weights may stay.

Source: Marshall 2020, Eq. (6), S = {θ : ‖θ‖₀ ≤ k}. Projection keeps the k entries of largest magnitude.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from robust_edge.pruning.prunable import budget_of
from robust_edge.pruning.schemes.projection import masked
from robust_edge_runtimes.errors import InputError


def project_irregular(
    weights: Mapping[str, Tensor], keep: float, *, scope: str = "global", floor: float = 0.0
) -> dict[str, Tensor]:
    """Keep exactly k = round(keep × all) weights.

    Deviation from the text: a global threshold can empty a layer and so cut the network in two; `floor`
    keeps the largest weights of every layer, at least one, before the threshold is set.

    Args:
        weights: layer name to weight tensor of any shape.
        keep: fraction in (0, 1].
        scope: `global`, one threshold; `layer`, the same fraction everywhere.
        floor: fraction of every layer that stays in any case.

    Returns:
        New tensors; ties are broken by position, so the count is exact. An entry that is zero already may
        be among the kept, so the count of non-zeros is at most k.

    Raises:
        InputError: k is smaller than what the floors demand.
    """
    return masked(weights, support_irregular(weights, keep, scope=scope, floor=floor))


def support_irregular(
    weights: Mapping[str, Tensor], keep: float, *, scope: str = "global", floor: float = 0.0
) -> dict[str, Tensor]:
    """Which weights `project_irregular` keeps: bool tensors, exactly k of them true."""
    sizes = {name: weight.numel() for name, weight in weights.items()}
    budget = budget_of(weights, keep)
    counts = _even_counts(sizes, budget) if scope == "layer" else _global_counts(weights, budget, floor)
    return {name: _largest(weight, counts[name]) for name, weight in weights.items()}


def _even_counts(sizes: Mapping[str, int], budget: int) -> dict[str, int]:
    """Shares of the budget in proportion to size, each at least 1, by largest remainder."""
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


def _global_counts(weights: Mapping[str, Tensor], budget: int, floor: float) -> dict[str, int]:
    """How many each layer keeps under one threshold, its floor already granted."""
    floors = {name: max(1, int(floor * weight.numel())) for name, weight in weights.items()}
    granted = sum(floors.values())
    if budget < granted:
        raise InputError(
            f"keep leaves {budget} weights, but the floor of {len(floors)} layers takes {granted}; raise --keep "
            "or lower pruning.floor"
        )
    free = {
        name: weight.detach().abs().flatten().sort(descending=True).values[floors[name] :]
        for name, weight in weights.items()
    }
    chosen = torch.cat(list(free.values())).topk(budget - granted).indices
    ends = torch.tensor([len(values) for values in free.values()], device=chosen.device).cumsum(0)
    layer = torch.searchsorted(ends, chosen, right=True)
    extra = torch.bincount(layer, minlength=len(free)).tolist()
    return {name: floors[name] + more for name, more in zip(free, extra, strict=True)}


def _largest(weight: Tensor, count: int) -> Tensor:
    order = weight.detach().abs().flatten().sort(descending=True, stable=True).indices
    kept = torch.zeros(weight.numel(), dtype=torch.bool, device=weight.device)
    kept[order[:count]] = True
    return kept.view(weight.shape)
