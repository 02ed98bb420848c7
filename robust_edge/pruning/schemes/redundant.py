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
    """Keep exactly k weights: whole filters, no two of equal shape closer than ϕ, and less than one further filter.

    The distance of two filters is that of their unit vectors, 0 for equal directions and 2 for opposite ones, since
    batch norm cancels their norms. A filter is removed if a stronger filter (of larger norm) of the same shape, in any
    layer, is closer than ϕ. ϕ is the smallest value that leaves at most k weights; it follows from the sorted distances
    to the nearest stronger filter. The remaining weights up to k, less than one filter, are the largest weights of the
    removed filters.

    Interpretation: where the text compares the weights of layers, filters are compared, since layers differ in shape.
    Every layer keeps the fraction `floor` of its filters, at least one. The distances hold when the filters are
    chosen; training under the mask changes them, so a finished network is checked for its number of weights and for
    whole filters only.

    Attributes:
        whole: names of the layers that keep all filters: the classifier, whose filters are classes, and grouped
            convolutions, whose filters read different channels.
    """

    whole: frozenset[str] = dataclasses.field(default=frozenset(), compare=False)

    def build(self, model: nn.Module, shape: tuple[int, ...], keep: float) -> Redundant:
        """Set the floor and the layers that keep all filters."""
        whole = whole_by_layout(layout_of(model, shape))
        return dataclasses.replace(self, floor=self.floor_at(keep), whole=whole)

    @property
    def dense_layers(self) -> tuple[str, ...]:
        """The classifier and grouped convolutions, sorted."""
        return tuple(sorted(self.whole))

    def support_impl(self, weights: Weights, keep: float) -> dict[str, Tensor]:
        """Keep whole filters, and the largest of the other weights up to k."""
        budget = budget_of(weights, keep)
        kept = self._kept_filters(weights, distances_to_stronger(weights), budget)
        spread = {name: _spread(kept[name], weight) for name, weight in weights.items()}
        left = budget - sum(int(mask.sum()) for mask in spread.values())
        counts = counts_of_largest(
            {n: w[~spread[n]].abs() for n, w in weights.items()}, left, dict.fromkeys(weights, 0)
        )
        return {n: spread[n] | highest(w.abs().masked_fill(spread[n], -1), counts[n]) for n, w in weights.items()}

    def violation(self, support: Support, keep: float) -> str | None:
        """Check the number of weights, the whole filters of every layer, and the number of weights beside them."""
        beside, longest = 0, 0
        for name, mask in support.items():
            rows = mask.flatten(1)
            whole = rows.all(1)
            least = len(rows) if name in self.whole else _floor(len(rows), self.least)
            if int(whole.sum()) < least:
                return f"{name} keeps {int(whole.sum())} whole filters; it must keep at least {least}"
            beside += int(rows[~whole].sum())
            longest = max(longest, rows.shape[1])
        if beside >= longest:
            return f"{beside} weights are kept beside whole filters; they must be fewer than a filter has"
        return super().violation(support, keep)

    def _kept_filters(self, weights: Weights, distances: Mapping[str, Tensor], budget: int) -> dict[str, Tensor]:
        """Bool per filter: the protected filters, and those farthest from any stronger filter within the budget."""
        kept = {name: self._protected(name, distance) for name, distance in distances.items()}
        left = budget - sum(int(kept[name].sum()) * weight[0].numel() for name, weight in weights.items())
        if left < 0:
            raise InputError(
                f"pruning.keep leaves {budget} weights, {-left} fewer than the filters that are always kept have (all "
                f"of the classifier and grouped convolutions, a fraction of {self.least:g} of every other layer); "
                "raise pruning.keep, or lower pruning.floor"
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
    return layout.grouped | layout.inputs_first | {layout.classifier}


def distances_to_stronger(weights: Weights) -> dict[str, Tensor]:
    """For each filter the distance to the nearest stronger filter of the same shape, between unit vectors.

    Of two filters with equal norms the earlier one counts as stronger. The strongest filter of a shape has distance
    infinity; a filter of zeros has distance 0.

    Returns:
        (filters,) distances by layer name.
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
    """(n, d) filters of one shape to their (n,) distances."""
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
