"""Expand: a tensor is repeated along axes of one element, as a view."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from robust_edge_exporters.native.builder import GraphBuilder


def expand(builder: GraphBuilder, node: Any) -> None:
    """Import Expand to constant dimensions."""
    view, target = builder.view(node, 0), builder.required(node, 1)
    dims = np.broadcast_shapes(view.index.shape, tuple(int(size) for size in target))
    builder.add_view(node.output[0], replace(view, index=np.broadcast_to(view.index, dims)))


ONNX = {"Expand": expand}
