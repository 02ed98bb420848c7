"""Scope `macs` of irregular pruning: a global threshold with a bound on the multiply-accumulates.

In a convolution every weight is multiplied once for each output position: 1,024 times for an output of 32×32, 16 times
for one of 4×4. A global threshold ignores this; with the same k its network can be two or three times slower.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from torch import Tensor

from robust_edge.pruning.prunable import budget_of
from robust_edge.pruning.schemes.counts import (
    counts_of_largest,
    floor_counts,
    floor_violation,
    granted_floors,
    without_largest,
)
from robust_edge.pruning.schemes.scheme import FlooredScheme, Support, Weights, kept_per_layer, largest
from robust_edge_runtimes.core.errors import InputError

SLACK = 1e-3  # fraction of the bound that may stay unused; halving it takes one more pass over all weights
PRECISION = 1e-6  # relative accuracy of λ at which the search stops
MOST_PASSES = 100


@dataclasses.dataclass(frozen=True, kw_only=True)
class Macs(FlooredScheme):
    """Keep exactly k weights that need at most B multiply-accumulates.

    S = {θ : ‖θ‖₀ ≤ k, Σ_i c_i [θ_i ≠ 0] ≤ B}, where c_i is the number of multiply-accumulates of weight i. The nearest
    point keeps the weights that maximise Σ θ_i² under both bounds. For any multiplier λ ≥ 0 the k largest values of
    θ_i² − λ c_i are the optimum for the B that they need (Everett 1963), and this B decreases as λ increases. λ is 0,
    the plain global threshold, if that needs at most B; otherwise it is found by bisection, to within 0.1% of B or as
    close as whole weights allow.

    With the default B = keep × dense, the result of scope `layer` also lies in S, and is never nearer to θ.

    Attributes:
        macs_per_weight: c_i of the weights of each layer.
        share: B as a fraction of the dense network's multiply-accumulates; None for the kept fraction.
        unit: what is kept or removed, for error messages.
    """

    macs_per_weight: Mapping[str, int]
    share: float | None = None
    unit: str = "weights"

    def support_impl(self, weights: Weights, keep: float) -> dict[str, Tensor]:
        """Keep the floor of each layer, and otherwise the largest values of θ² − λc, k weights in total."""
        budget = budget_of(weights, keep)
        floors = granted_floors(weights, budget, self.least)
        self._refuse_impossible(weights, budget, floors, keep)
        energy = {name: without_largest(weight, floors[name]).square() for name, weight in weights.items()}
        counts = self._search(energy, budget, floors, self.bound(weights, keep))
        return {name: largest(weight, counts[name]) for name, weight in weights.items()}

    def bound(self, weights: Weights, keep: float) -> float:
        """B, the largest number of multiply-accumulates."""
        share = keep if self.share is None else self.share
        return share * sum(self.macs_per_weight[name] * weight.numel() for name, weight in weights.items())

    def needed(self, counts: Mapping[str, int]) -> int:
        """Multiply-accumulates of the given number of weights of each layer."""
        return sum(self.macs_per_weight[name] * count for name, count in counts.items())

    def violation(self, support: Support, keep: float) -> str | None:
        """Check the number of weights, the floors, and the multiply-accumulates."""
        needed, bound = self.needed(kept_per_layer(support)), self.bound(support, keep)
        over = f"{needed} multiply-accumulates are left; at most {bound:.0f} are allowed" if needed > bound else None
        floors = floor_violation(support, floor_counts(support, self.least))
        return super().violation(support, keep) or floors or over

    def _search(
        self, energy: Mapping[str, Tensor], budget: int, floors: Mapping[str, int], bound: float
    ) -> dict[str, int]:
        """The counts of the smallest λ found whose weights need at most the bound."""
        low = multiplier = 0.0
        high: float | None = None
        best: dict[str, int] = {}
        for _ in range(MOST_PASSES):
            counts = self._counts(energy, budget, floors, multiplier)
            needed = self.needed(counts)
            if needed <= bound:
                high, best = multiplier, counts
                if needed >= (1 - SLACK) * bound:
                    break
            else:
                low = multiplier
            if high is None:
                multiplier = 2 * multiplier or self._start(energy)
            elif high - low <= PRECISION * high:
                break
            else:
                multiplier = (low + high) / 2
        assert best, "a multiplier after this number of doublings exceeds every weight"
        return best

    def _counts(
        self, energy: Mapping[str, Tensor], budget: int, floors: Mapping[str, int], multiplier: float
    ) -> dict[str, int]:
        scores = {name: values - multiplier * self.macs_per_weight[name] for name, values in energy.items()}
        return counts_of_largest(scores, budget, floors)

    def _start(self, energy: Mapping[str, Tensor]) -> float:
        """The initial λ: mean energy of the weights divided by their mean cost."""
        total = sum(float(values.sum()) for values in energy.values())
        return max(total / max(1, self.needed({name: len(values) for name, values in energy.items()})), 1e-30)

    def _refuse_impossible(self, weights: Weights, budget: int, floors: Mapping[str, int], keep: float) -> None:
        """Raise InputError if even the k cheapest weights exceed the bound."""
        counts, left = dict(floors), budget - sum(floors.values())
        for name in sorted(weights, key=lambda name: self.macs_per_weight[name]):
            more = min(left, weights[name].numel() - counts[name])
            counts[name], left = counts[name] + more, left - more
        least, bound = self.needed(counts), self.bound(weights, keep)
        if least > bound:
            raise InputError(
                f"{budget} {self.unit} need at least {least} multiply-accumulates with every layer at its floor, "
                f"pruning.macs allows {bound:.0f}; raise pruning.macs, or lower pruning.floor or pruning.keep"
            )
