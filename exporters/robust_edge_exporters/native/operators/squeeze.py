"""Squeeze and Unsqueeze: axes of one element come and go."""

from __future__ import annotations

from typing import Any

import numpy as np

from robust_edge_exporters.native.builder import GraphBuilder
from robust_edge_exporters.native.operators.flatten import append_reordered


def squeeze(builder: GraphBuilder, node: Any) -> None:
    """Import Squeeze; without axes it removes all of one element but that of the images."""
    index, axes = builder.view(node, 0).index, builder.integers(node, 1, "axes")
    if axes is None:
        axes = [axis for axis in range(1, index.ndim) if index.shape[axis] == 1]
    append_reordered(builder, node, np.squeeze(index, tuple(axes)))


def unsqueeze(builder: GraphBuilder, node: Any) -> None:
    """Import Unsqueeze."""
    axes = builder.integers(node, 1, "axes") or []
    append_reordered(builder, node, np.expand_dims(builder.view(node, 0).index, tuple(axes)))


ONNX = {"Squeeze": squeeze, "Unsqueeze": unsqueeze}
