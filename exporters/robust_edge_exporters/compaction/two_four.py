"""The fraction of a network that is in the 2:4 pattern, the only sparsity that sparse tensor cores use."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


def two_four_share(layers: Iterable[np.ndarray]) -> float:
    """Fraction of the weights in layers with at most two non-zeros among every four neighbouring inputs.

    The denominator is the number of weights of all given layers with at least four inputs, which excludes the first
    layer of a network with one to three input channels. A layer whose number of inputs is not a multiple of four does
    not have the pattern.

    Args:
        layers: weights (..., inputs) of the layers that are not grouped, the input axis last.

    Returns:
        0 to 1; 0 if no layer has four inputs.
    """
    counted = [layer for layer in layers if layer.shape[-1] >= 4]
    fitting = sum(layer.size for layer in counted if _in_pattern(layer))
    return fitting / max(1, sum(layer.size for layer in counted))


def _in_pattern(layer: np.ndarray) -> bool:
    return layer.shape[-1] % 4 == 0 and bool((np.count_nonzero(layer.reshape(-1, 4), axis=1) <= 2).all())
