"""Linear: the product of a vector with a constant matrix, and a bias."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from robust_edge_exporters.native import ir
from robust_edge_exporters.native.builder import GraphBuilder, attributes, float32, unsupported
from robust_edge_exporters.native.geometry import Shape


@dataclass(frozen=True, kw_only=True)
class Linear(ir.Weighted):
    """Matrix product with weight (M, K) and bias (M,)."""


def linear(builder: GraphBuilder, node: Any) -> None:
    """Import Gemm or MatMul with a constant second operand."""
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


ONNX = {"Gemm": linear, "MatMul": linear}
