"""Sliding windows of convolutions and pooling: their import from ONNX, and the C struct pooling."""

from __future__ import annotations

import math
from typing import Any

from robust_edge_exporters.native import ir
from robust_edge_exporters.native.builder import attributes, unsupported
from robust_edge_exporters.native.geometry import Shape, Tensor, Window


def window_of(node: Any, shape: Shape, kernel: tuple[int, ...]) -> Window:
    """The window of a Conv or pooling node with an input of `shape`; attributes of one dimension are those of a row."""
    values = attributes(node)
    if shape.flat or len(kernel) != 2:
        raise unsupported(node, f"only two-dimensional images, kernel is {tuple(kernel)}")
    strides = (1, *values.get("strides", (1, 1)))[-2:]
    dilations = (1, *values.get("dilations", (1, 1)))[-2:]
    pads = tuple(values.get("pads", (0, 0, 0, 0)))
    if len(pads) == 2:
        pads = (0, pads[0], 0, pads[1])
    auto = values.get("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        pads = same_pads(shape, kernel, strides, dilations, upper=auto == "SAME_UPPER")
    elif auto == "VALID":
        pads = (0, 0, 0, 0)
    if min(pads) < 0:
        raise unsupported(node, f"negative padding {pads}")
    return Window((kernel[0], kernel[1]), strides, pads, dilations)


def same_pads(
    shape: Shape, kernel: tuple[int, ...], strides: Any, dilations: Any, *, upper: bool
) -> tuple[int, int, int, int]:
    """Pads of auto_pad SAME: the output has ceil(size / stride) pixels; an odd pad is added at the end if `upper`."""
    begin, end = [], []
    for size, k, stride, dilation in zip((shape.height, shape.width), kernel, strides, dilations, strict=True):
        total = max(0, (math.ceil(size / stride) - 1) * stride + dilation * (k - 1) + 1 - size)
        small, large = total // 2, total - total // 2
        begin.append(small if upper else large)
        end.append(large if upper else small)
    return begin[0], begin[1], end[0], end[1]


def not_empty(node: Any, shape: Shape) -> Shape:
    """Return `shape`; raise ExportError if it is empty because the window is larger than the input."""
    if min(shape.height, shape.width) < 1:
        raise unsupported(node, f"output would be {shape.height}x{shape.width}")
    return shape


def pooled(node: Any, shape: Shape) -> tuple[Window, Shape]:
    """The window and the output shape of a pooling node with an input of `shape`."""
    values = attributes(node)
    if len(node.output) > 1 and node.output[1]:
        raise unsupported(node, "indices are not computed")
    window = window_of(node, shape, (1, *values["kernel_shape"])[-2:])
    size = window.output(shape, ceil=bool(values.get("ceil_mode", 0)))
    return window, not_empty(node, Shape(shape.channels, *size))


def pooling(
    function: str, source: Tensor, output: Tensor, window: Window, act: ir.Activation = ir.NONE, **more: int
) -> ir.Call:
    """A call of a C function with a struct pooling."""
    fields = {
        "in": source,
        "out": output,
        "kernel_y": window.kernel[0],
        "kernel_x": window.kernel[1],
        "stride_y": window.strides[0],
        "stride_x": window.strides[1],
        "top": window.pads[0],
        "left": window.pads[1],
        "bottom": window.pads[2],
        "right": window.pads[3],
        "dilation_y": window.dilations[0],
        "dilation_x": window.dilations[1],
        "act": act,
    }
    return ir.Call(function, "pooling", fields | more)
