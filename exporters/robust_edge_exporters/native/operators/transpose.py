"""Transpose, DepthToSpace (pixel shuffle) and SpaceToDepth: elements in another order, as a view."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from robust_edge_exporters.native.builder import GraphBuilder, attributes, unsupported
from robust_edge_exporters.native.operators.flatten import append_reordered


def transpose(builder: GraphBuilder, node: Any) -> None:
    """Import Transpose of any axes."""
    view = builder.view(node, 0)
    axes = attributes(node).get("perm", range(view.index.ndim)[::-1])
    append_reordered(builder, node, view.index.transpose(axes))


def depth_to_space(builder: GraphBuilder, node: Any) -> None:
    """Import DepthToSpace in both modes."""
    n, c, h, w = image_dims(builder, node)
    size, index = attributes(node)["blocksize"], builder.view(node, 0).index
    if attributes(node).get("mode", "DCR") == "CRD":
        blocks = index.reshape(n, c // size**2, size, size, h, w).transpose(0, 1, 4, 2, 5, 3)
    else:
        blocks = index.reshape(n, size, size, c // size**2, h, w).transpose(0, 3, 4, 1, 5, 2)
    append_reordered(builder, node, blocks.reshape(n, c // size**2, h * size, w * size))


def space_to_depth(builder: GraphBuilder, node: Any) -> None:
    """Import SpaceToDepth."""
    n, c, h, w = image_dims(builder, node)
    size, view = attributes(node)["blocksize"], builder.view(node, 0)
    blocks = view.index.reshape(n, c, h // size, size, w // size, size).transpose(0, 3, 5, 1, 2, 4)
    builder.add_view(node.output[0], replace(view, index=blocks.reshape(n, c * size**2, h // size, w // size)))


def image_dims(builder: GraphBuilder, node: Any) -> tuple[int, int, int, int]:
    """The dimensions (N, C, H, W) of input 0."""
    dims = builder.dims(node, 0)
    if len(dims) != 4:
        raise unsupported(node, f"of a tensor of dimensions {dims}; only (N, C, H, W)")
    return dims[0], dims[1], dims[2], dims[3]


ONNX = {"DepthToSpace": depth_to_space, "SpaceToDepth": space_to_depth, "Transpose": transpose}
