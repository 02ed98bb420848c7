"""Sparsity sets: each scheme is one projection, name -> function, in this table."""

from __future__ import annotations

from robust_edge.config import PruningConfig
from robust_edge.pruning.schemes.irregular import project_irregular
from robust_edge.pruning.schemes.projection import Projection

__all__ = ["Projection", "projection_of"]


def projection_of(config: PruningConfig) -> Projection:
    """The projection onto the config's sparsity set.

    Returns:
        A function of (weights by name, kept fraction) to the nearest point of the set.
    """
    table: dict[str, Projection] = {
        "irregular": lambda weights, keep: project_irregular(weights, keep, scope=config.scope, floor=config.floor),
    }
    return table[config.scheme]
