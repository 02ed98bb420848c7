"""Redundant pruning: of two filters in nearly the same direction, the weaker is removed.

Source: Marshall 2020, section 3.2.1, S = {θ : no θ_n, θ_j with ‖θ_n − θ_j‖ < ϕ}, read as below.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from robust_edge.pruning.layout import Layout, layout_of
from robust_edge.pruning.prunable import budget_of
from robust_edge.pruning.schemes.counts import counts_of_largest
from robust_edge.pruning.schemes.scheme import FlooredScheme, Support, Weights, highest
from robust_edge_runtimes.core.errors import InputError

BLOCK = 1024  # filters whose distances are held in memory at a time, against all others of their shape
NONE = -2.0  # no cosine is as small


@dataclasses.dataclass(frozen=True, kw_only=True)
class Redundant(FlooredScheme):
    """Keeps exactly k weights: whole filters, no two of equal shape closer than ϕ, and less than one filter beside.

    The distance of two filters is that of their unit vectors, 0 for equal directions and 2 for opposite ones, as
    batch-norm takes away their lengths. Any filter that has a stronger one (a larger norm) of its shape within ϕ is
    removed, whatever layers the two belong to. ϕ is as small as k allows: the distance to the nearest stronger filter
    alone decides the order of removal, so ϕ follows from the sorted distances. The rest of k, less than one filter,
    goes to the largest weights of the removed filters.

    Interpretation of the text: its weights of a layer are taken as filters, for layers differ in shape; every layer
    keeps `floor` of its filters, at least one. The distances hold when the filters are chosen; training under the
    mask moves them, so a finished network is checked for its count and for whole filters.

    Attributes:
        whole: names of layers that keep every filter: the classifier, whose filters are classes, and convolutions
            of several groups, whose filters read different channels.
    """

    whole: frozenset[str] = dataclasses.field(default=frozenset(), compare=False)

    def build(self, model: nn.Module, shape: tuple[int, ...], keep: float) -> Redundant:
        """With the layers that keep every filter."""
        whole = whole_by_layout(layout_of(model, shape))
        return dataclasses.replace(self, floor=self.floor_at(keep), whole=whole)

    @property
    def dense_layers(self) -> tuple[str, ...]:
        """The classifier and grouped convolutions."""
        return tuple(sorted(self.whole))

    def support_impl(self, weights: Weights, keep: float) -> dict[str, Tensor]:
        """Whole filters, then the largest of the other weights."""
        budget = budget_of(weights, keep)
        kept = self._kept_filters(weights, distances_to_stronger(weights), budget)
        spread = {name: _spread(kept[name], weight) for name, weight in weights.items()}
        left = budget - sum(int(mask.sum()) for mask in spread.values())
        counts = counts_of_largest(
            {n: w[~spread[n]].abs() for n, w in weights.items()}, left, dict.fromkeys(weights, 0)
        )
        return {n: spread[n] | highest(w.abs().masked_fill(spread[n], -1), counts[n]) for n, w in weights.items()}

    def violation(self, support: Support, keep: float) -> str | None:
        """Checks the count, the whole filters of every layer, and the number of weights beside them."""
        beside, longest = 0, 0
        for name, mask in support.items():
            rows = mask.flatten(1)
            whole = rows.all(1)
            least = len(rows) if name in self.whole else _floor(len(rows), self.least)
            if int(whole.sum()) < least:
                return f"{name} keeps {int(whole.sum())} whole filters, at least {least} stay"
            beside += int(rows[~whole].sum())
            longest = max(longest, rows.shape[1])
        if beside >= longest:
            return f"{beside} weights are kept beside whole filters, as many as a filter has"
        return super().violation(support, keep)

    def _kept_filters(self, weights: Weights, distances: Mapping[str, Tensor], budget: int) -> dict[str, Tensor]:
        """Bool per filter: the protected ones, then those farthest from any stronger one, while the budget lasts."""
        kept = {name: self._protected(name, distance) for name, distance in distances.items()}
        left = budget - sum(int(kept[name].sum()) * weight[0].numel() for name, weight in weights.items())
        if left < 0:
            raise InputError(
                f"keep leaves {budget} weights, {-left} fewer than the least number of whole filters has (the "
                f"classifier and grouped convolutions whole, {self.least:g} of every other layer); raise --keep, or "
                "lower pruning.floor"
            )
        sizes = torch.cat([torch.full((len(weight),), weight[0].numel()) for weight in weights.values()])
        flat = torch.cat([distances[name].masked_fill(kept[name], -1).cpu() for name in weights])
        order = flat.sort(descending=True, stable=True).indices
        order = order[flat[order] >= 0]
        order = order[sizes[order].cumsum(0) <= left]
        chosen = torch.zeros(len(flat), dtype=torch.bool)
        chosen[order] = True
        parts = chosen.split([len(weight) for weight in weights.values()])
        return {n: kept[n] | part.to(kept[n].device) for n, part in zip(weights, parts, strict=True)}

    def _protected(self, name: str, distance: Tensor) -> Tensor:
        if name in self.whole:
            return torch.ones_like(distance, dtype=torch.bool)
        return highest(distance, _floor(len(distance), self.least))


def whole_by_layout(layout: Layout) -> frozenset[str]:
    """The layers that keep every filter."""
    return layout.grouped | {layout.classifier}


def distances_to_stronger(weights: Weights) -> dict[str, Tensor]:
    """For each filter the distance to the nearest stronger one of its shape, as unit vectors.

    Of filters equally strong, the earlier counts as the stronger. The strongest of a shape is infinitely far from
    any stronger one; a filter of zeros is at distance 0.

    Returns:
        Layer name to (filters,) floats.
    """
    shapes: dict[torch.Size, list[str]] = {}
    for name, weight in weights.items():
        shapes.setdefault(weight.shape[1:], []).append(name)
    found: dict[str, Tensor] = {}
    for names in shapes.values():
        parts = _nearest_stronger(torch.cat([weights[name].flatten(1) for name in names]))
        found.update(zip(names, parts.split([len(weights[name]) for name in names]), strict=True))
    return found


def _nearest_stronger(filters: Tensor) -> Tensor:
    """(n, d) to (n,)."""
    norms = filters.norm(dim=1)
    order = norms.sort(descending=True, stable=True).indices
    units = (filters / norms.clamp_min(1e-30)[:, None])[order]
    nearest = torch.full_like(norms, math.inf)
    for start in range(0, len(units), BLOCK):
        end = min(start + BLOCK, len(units))
        cosines = units[start:end] @ units[:end].T
        not_stronger = torch.ones_like(cosines, dtype=torch.bool).triu(start)
        best = cosines.masked_fill(not_stronger, NONE).max(1).values
        squared = (2 - 2 * best).clamp_min(0)
        nearest[order[start:end]] = torch.where(best > NONE, squared.sqrt(), math.inf)
    return nearest.masked_fill(norms == 0, 0.0)


def _floor(filters: int, share: float) -> int:
    return max(1, int(share * filters))


def _spread(rows: Tensor, weight: Tensor) -> Tensor:
    """(O,) to the shape of the weight."""
    return rows.view(-1, *[1] * (weight.dim() - 1)).expand_as(weight)
