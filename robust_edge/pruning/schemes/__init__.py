"""Sparsity sets: each scheme says which weights stay, name -> function, in this table."""

from __future__ import annotations

from robust_edge.config import PruningConfig
from robust_edge.pruning.schemes.irregular import support_irregular
from robust_edge.pruning.schemes.projection import Projection, Support, masked

__all__ = ["Projection", "Support", "projection_of", "support_of"]


def support_of(config: PruningConfig) -> Support:
    """Which weights the config's sparsity set keeps.

    Returns:
        A function of (weights by name, kept fraction) to bool masks.
    """
    table: dict[str, Support] = {
        "irregular": lambda weights, keep: support_irregular(weights, keep, scope=config.scope, floor=config.floor),
    }
    return table[config.scheme]


def projection_of(config: PruningConfig) -> Projection:
    """The projection onto the config's sparsity set.

    Returns:
        A function of (weights by name, kept fraction) to the nearest point of the set.
    """
    support = support_of(config)
    return lambda weights, keep: masked(weights, support(weights, keep))
