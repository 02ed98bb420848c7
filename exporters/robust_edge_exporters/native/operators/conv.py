"""Conv: two-dimensional convolution with constant weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from robust_edge_exporters.native import ir
from robust_edge_exporters.native.builder import GraphBuilder, attributes, float32, unsupported
from robust_edge_exporters.native.geometry import Shape
from robust_edge_exporters.native.operators.window import not_empty, window_of


@dataclass(frozen=True, kw_only=True)
class Conv(ir.Convolution):
    """Convolution of floats."""


def conv(builder: GraphBuilder, node: Any) -> None:
    """Import Conv with any stride, padding, dilation and number of groups, in one or two dimensions."""
    source, weight = builder.tensor(node, 0), builder.required(node, 1)
    weight = on_planes(builder, node, weight)
    shape, groups = builder.shapes[source], attributes(node).get("group", 1)
    window = window_of(node, shape, weight.shape[2:])
    if weight.shape[1] * groups != shape.channels:
        raise unsupported(node, f"weight {weight.shape} with {groups} groups does not fit {shape.channels} channels")
    op = Conv(
        node.input[1],
        (source,),
        node.output[0],
        weight=float32(weight),
        bias=bias_of(builder, node, weight.shape[0]),
        window=window,
        groups=groups,
    )
    output = not_empty(node, Shape(weight.shape[0], *window.output(shape)))
    builder.append(op, output, builder.row_order(node, output))


def on_planes(builder: GraphBuilder, node: Any, weight: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A weight (O, I, k) or (O, I, kh, kw) as (O, I, kh, kw): in one dimension the images have one row."""
    if weight.ndim not in (3, 4) or weight.ndim != len(builder.dims(node, 0)):
        raise unsupported(node, f"only convolution in one or two dimensions, weight is {weight.shape}")
    return weight if weight.ndim == 4 else weight[:, :, None]


def bias_of(builder: GraphBuilder, node: Any, channels: int) -> ir.Array:
    """The bias (O,) of a convolution, zeros if it has none."""
    bias = builder.constant(node, 2)
    return float32(np.zeros(channels) if bias is None else bias)


ONNX = {"Conv": conv}
