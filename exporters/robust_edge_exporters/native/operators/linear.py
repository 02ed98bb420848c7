"""Linear: the product of a vector with a constant matrix, and a bias."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from robust_edge_exporters.native import ir
from robust_edge_exporters.native.builder import GraphBuilder, attributes, float32, unsupported
from robust_edge_exporters.native.geometry import Shape, Window
from robust_edge_exporters.native.operators.conv import Conv
from robust_edge_exporters.native.views import Indices, identity


@dataclass(frozen=True, kw_only=True)
class Linear(ir.Weighted):
    """Matrix product with weight (M, K) and bias (M,)."""


def linear(builder: GraphBuilder, node: Any) -> None:
    """Import Gemm or MatMul with a constant second operand; of each pixel of channels-last images as a convolution."""
    if len(builder.dims(node, 0)) != 2:
        by_pixel(builder, node)
        return
    source, values = builder.tensor(node, 0), attributes(node)
    weight, bias, shape = builder.required(node, 1), builder.constant(node, 2), builder.shapes[source]
    if values.get("transA", 0) or weight.ndim != 2 or not shape.flat:
        raise unsupported(node, f"only (N, K) times a constant matrix, operand is {weight.shape}")
    rows = weight if values.get("transB", 0) else weight.T
    if rows.shape[1] != shape.channels:
        raise unsupported(node, f"weight {rows.shape} does not fit {shape.channels} features")
    offset = np.zeros(1) if bias is None else bias.reshape(-1) * values.get("beta", 1.0)
    if offset.size not in (1, rows.shape[0]):
        raise unsupported(node, f"bias {offset.shape} of {rows.shape[0]} features: only one value, or one per feature")
    op = Linear(
        node.input[1],
        (source,),
        node.output[0],
        weight=float32(rows * np.float32(values.get("alpha", 1.0))),
        bias=float32(np.broadcast_to(offset, rows.shape[:1])),
    )
    builder.append(op, Shape(rows.shape[0], flat=True))


def by_pixel(builder: GraphBuilder, node: Any) -> None:
    """Import the product of (N, H, W, C) or (N, L, C) and a matrix (C, M) as a convolution of 1x1 pixels."""
    if len(node.input) > 1 and node.input[1] not in builder.constants:
        raise unsupported(node, "of two computed tensors, as in attention")
    weight = builder.required(node, 1)
    source, order = channels_first(builder, node)
    shape = builder.shapes[source]
    if weight.ndim != 2 or weight.shape[0] != shape.channels:
        raise unsupported(node, f"matrix {weight.shape} does not fit {shape.channels} channels")
    rows = float32(weight.T).reshape(weight.shape[1], -1, 1, 1)
    op = Conv(
        node.input[1],
        (source,),
        node.output[0],
        weight=rows,
        bias=np.zeros(len(rows), np.float32),
        window=Window((1, 1)),
    )
    output = Shape(len(rows), shape.height, shape.width)
    builder.append(op, output, order(identity(output, builder.batch)))


def channels_first(builder: GraphBuilder, node: Any) -> tuple[str, Callable[[Indices], Indices]]:
    """Input 0 of dimensions (N, ..., C) as an image, and the function that brings an index of images into its order."""
    view = builder.view(node, 0)
    rank = view.index.ndim
    if rank not in (2, 3, 4):
        raise unsupported(node, f"of a tensor of dimensions {view.index.shape}; only (N, K), (N, L, C) or (N, H, W, C)")
    if rank == 2:
        return builder.tensor(node, 0), lambda index: index
    source = builder.stored(node, replace(view, index=np.moveaxis(view.index, -1, 1)))
    return source, lambda index: np.moveaxis(index[:, :, 0] if rank == 3 else index, 1, -1)


ONNX = {"Gemm": linear, "MatMul": linear}
