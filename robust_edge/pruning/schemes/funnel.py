"""Funnel pruning: every layer keeps a smaller fraction of its weights than the layer before it.

Source: Marshall 2020, section 3.2.1, S = {θ : ‖θ_n‖₀/|θ_n| − ‖θ_{n+1}‖₀/|θ_{n+1}| > 0 for all n}, with ‖θ‖₀ = k.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from fractions import Fraction

from torch import Tensor, nn

from robust_edge.pruning.layout import layout_of
from robust_edge.pruning.prunable import budget_of
from robust_edge.pruning.schemes.counts import floor_counts, floor_violation, global_counts
from robust_edge.pruning.schemes.scheme import FlooredScheme, Support, Weights, kept_per_layer, largest
from robust_edge_runtimes.core.errors import InputError

HALVINGS = 60


@dataclasses.dataclass(frozen=True, kw_only=True)
class Funnel(FlooredScheme):
    """Keep exactly k weights, with a kept fraction that strictly decreases with depth.

    The counts of one global threshold are changed to the nearest decreasing fractions (isotonic regression with layers
    weighted by size, which preserves the total), and then to whole numbers with strictly decreasing fractions. Each
    layer keeps its largest weights. If the counts of the global threshold decrease already, the result is that of
    `irregular`.

    Interpretation: the text says "proportionally more pruned than the previous layer" without an amount; here a
    difference of one weight suffices.

    Attributes:
        depth: layer names in the order of the forward pass; if empty, the order of the weights is used.
    """

    depth: Sequence[str] = dataclasses.field(default=(), compare=False)

    def build(self, model: nn.Module, shape: tuple[int, ...], keep: float) -> Funnel:
        """Set the floor and the order of the layers of the network."""
        return dataclasses.replace(self, floor=self.floor_at(keep), depth=layout_of(model, shape).depth)

    def support_impl(self, weights: Weights, keep: float) -> dict[str, Tensor]:
        """Keep the largest weights of each layer, in the number given by `strict_counts`."""
        budget = budget_of(weights, keep)
        ordered = {name: weights[name] for name in self.depth or weights}
        sizes = {name: weight.numel() for name, weight in ordered.items()}
        desired = decreasing(global_counts(ordered, budget, self.least), sizes)
        counts = strict_counts(desired, sizes, budget, floor_counts(ordered, self.least))
        return {name: largest(weight, counts[name]) for name, weight in weights.items()}

    def violation(self, support: Support, keep: float) -> str | None:
        """Check the number of weights, the order of the fractions, and the floors."""
        return super().violation(support, keep) or self._order_violation(support) or self._floors(support)

    def _floors(self, support: Support) -> str | None:
        return floor_violation(support, floor_counts(support, self.least))

    def _order_violation(self, support: Support) -> str | None:
        counts, names = kept_per_layer(support), list(self.depth or support)
        kept = {name: Fraction(counts[name], support[name].numel()) for name in names}
        for upper, lower in itertools.pairwise(names):
            if not kept[upper] > kept[lower]:
                return f"{lower} keeps {float(kept[lower]):.2%}, not less than {upper} before it"
        return None


def decreasing(counts: Mapping[str, int], sizes: Mapping[str, int]) -> dict[str, float]:
    """The non-increasing fractions nearest to those of the counts, by squared distance weighted by size.

    Pool-adjacent-violators algorithm: adjacent layers in the wrong order get a common fraction with the same total.
    """
    pools: list[tuple[int, int, list[str]]] = []
    for name, count in counts.items():
        pool = (count, sizes[name], [name])
        while pools and pools[-1][0] * pool[1] < pool[0] * pools[-1][1]:
            kept, size, names = pools.pop()
            pool = (kept + pool[0], size + pool[1], names + pool[2])
        pools.append(pool)
    return {name: kept / size for kept, size, names in pools for name in names}


def strict_counts(
    desired: Mapping[str, float], sizes: Mapping[str, int], budget: int, floors: Mapping[str, int]
) -> dict[str, int]:
    """Counts near the desired fractions whose fractions strictly decrease and whose sum is the budget.

    Such counts form a lattice with a least and a greatest element. To any counts below the greatest one weight can be
    added in the shallowest layer that is below its greatest count, so every sum in between can be reached.

    Raises:
        InputError: there are no such counts.
    """
    least, most = _chain(dict.fromkeys(desired, 0.0), sizes, floors), _greatest(sizes)
    if not sum(least.values()) <= budget <= sum(most.values()) or any(least[n] > most[n] for n in sizes):
        raise InputError(
            f"pruning.keep leaves {budget} weights; fractions that strictly decrease over these {len(sizes)} layers "
            f"leave {sum(least.values())} to {sum(most.values())}; change pruning.keep, or lower pruning.floor"
        )

    def scaled(factor: float) -> dict[str, int]:
        chain = _chain({name: factor * share for name, share in desired.items()}, sizes, floors)
        return {name: min(count, most[name]) for name, count in chain.items()}

    low, high = 0.0, 1 / min(desired.values())  # at `high` every layer has its greatest count
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(scaled(middle).values()) <= budget else (low, middle)
    return _filled(scaled(low), sizes, most, budget, desired)


def _chain(desired: Mapping[str, float], sizes: Mapping[str, int], floors: Mapping[str, int]) -> dict[str, int]:
    """The least strictly decreasing counts that reach the desired fractions and the floors, from the last layer on."""
    counts: dict[str, int] = {}
    deeper: str | None = None
    for name in reversed(list(desired)):
        above = 0 if deeper is None else sizes[name] * counts[deeper] // sizes[deeper] + 1
        counts[name] = max(floors[name], round(desired[name] * sizes[name]), above)
        deeper = name
    return {name: counts[name] for name in desired}


def _greatest(sizes: Mapping[str, int]) -> dict[str, int]:
    """The greatest strictly decreasing counts, from the first layer on."""
    counts: dict[str, int] = {}
    upper: str | None = None
    for name, size in sizes.items():
        counts[name] = size if upper is None else -(-size * counts[upper] // sizes[upper]) - 1
        upper = name
    return counts


def _filled(
    counts: dict[str, int],
    sizes: Mapping[str, int],
    most: Mapping[str, int],
    budget: int,
    desired: Mapping[str, float],
) -> dict[str, int]:
    """Add single weights without violating the order, each to the layer that is farthest below its desired fraction."""
    names = list(sizes)
    for _ in range(budget - sum(counts.values())):
        allowed = [name for i, name in enumerate(names) if _may_grow(i, names, counts, sizes, most)]
        grown = max(allowed, key=lambda name: desired[name] - counts[name] / sizes[name])
        counts[grown] += 1
    return counts


def _may_grow(
    i: int, names: Sequence[str], counts: Mapping[str, int], sizes: Mapping[str, int], most: Mapping[str, int]
) -> bool:
    name = names[i]
    if counts[name] >= most[name]:
        return False
    return i == 0 or (counts[name] + 1) * sizes[names[i - 1]] < counts[names[i - 1]] * sizes[name]
