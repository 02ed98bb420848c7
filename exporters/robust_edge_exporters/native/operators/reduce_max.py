"""ReduceMax and GlobalMaxPool: the maximum of each plane, as a MaxPool over all of it."""

from __future__ import annotations

from typing import Any

from robust_edge_exporters.native import ir
from robust_edge_exporters.native.builder import GraphBuilder, attributes
from robust_edge_exporters.native.geometry import Window
from robust_edge_exporters.native.operators.max_pool import MaxPool
from robust_edge_exporters.native.operators.mean import append_reduced, reduced_axes


def global_max_pool(builder: GraphBuilder, node: Any) -> None:
    """Import GlobalMaxPool."""
    append_max(builder, node, tuple(range(2, len(builder.dims(node, 0)))), keep_axes=True)


def reduce_max(builder: GraphBuilder, node: Any) -> None:
    """Import ReduceMax."""
    append_max(builder, node, reduced_axes(builder, node), keep_axes=bool(attributes(node).get("keepdims", 1)))


def append_max(builder: GraphBuilder, node: Any, axes: tuple[int, ...], *, keep_axes: bool) -> None:
    """Append the maximum along `axes`."""

    def over_planes(name: str, inputs: tuple[str, ...], output: str) -> ir.Op:
        shape = builder.shapes[inputs[0]]
        return MaxPool(name, inputs, output, window=Window((shape.height, shape.width)))

    append_reduced(builder, node, axes, over_planes, keep_axes=keep_axes)


ONNX = {"GlobalMaxPool": global_max_pool, "ReduceMax": reduce_max}
