"""Count the weights of layers of which several may share one weight."""

from __future__ import annotations

from collections.abc import Iterable

from robust_edge_exporters.weight_uses import FIXED
from robust_edge_runtimes.core.manifest import LayerCount, Sparsity


def counted_once(layers: Iterable[LayerCount]) -> Sparsity:
    """The sums over all prunable layers; a weight that two operators share has one name and counts once."""
    return Sparsity.of_layers({layer.name: layer for layer in layers if not layer.name.startswith(FIXED)}.values())
