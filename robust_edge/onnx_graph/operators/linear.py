"""Convolutions and matrix products."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from robust_edge.onnx_graph.operators.node import Inputs, Node, channelwise, optional_input, padded, window_pads

CONVOLUTIONS = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
TRANSPOSED = {1: functional.conv_transpose1d, 2: functional.conv_transpose2d, 3: functional.conv_transpose3d}


def conv(node: Node, inputs: Inputs) -> Tensor:
    """A convolution in 1 to 3 dimensions."""
    x, weight, bias = inputs[0], inputs[1], optional_input(inputs, 2)
    axes = _dimensions(weight)
    pads = window_pads(node, x, weight.shape[2:])
    own = [first if first == last else 0 for first, last in pads]  # what the convolution itself can pad
    x = padded(x, [(0, 0) if first == last else (first, last) for first, last in pads])
    strides, dilations = node.get("strides", [1] * axes), node.get("dilations", [1] * axes)
    return CONVOLUTIONS[axes](x, weight, bias, strides, own, dilations, node.get("group", 1))


def conv_transpose(node: Node, inputs: Inputs) -> Tensor:
    """The whole result, then without what the padding cuts off; positions behind it get the bias only."""
    x, weight, bias = inputs[0], inputs[1], optional_input(inputs, 2)
    axes = _dimensions(weight)
    strides, dilations = node.get("strides", [1] * axes), node.get("dilations", [1] * axes)
    whole = TRANSPOSED[axes](x, weight, None, strides, 0, 0, node.get("group", 1), dilations)
    extra = node.get("output_padding", [0] * axes)
    pads = _transposed_pads(node, x, whole, extra)
    cut = padded(whole, [(-first, more - last) for (first, last), more in zip(pads, extra, strict=True)])
    return cut if bias is None else cut + channelwise(bias, cut)


def _transposed_pads(node: Node, x: Tensor, whole: Tensor, extra: list[int]) -> list[tuple[int, int]]:
    auto, axes = node.get("auto_pad", "NOTSET"), len(extra)
    wanted = node.get("output_shape", None)
    if wanted is None and auto in ("SAME_UPPER", "SAME_LOWER"):
        wanted = [size * stride for size, stride in zip(x.shape[2:], node.get("strides", [1] * axes), strict=True)]
    if wanted is None:
        pads = list(node.get("pads", None) or [0] * (2 * axes))
        return list(zip(pads[:axes], pads[axes:], strict=True))
    totals = [size + more - out for size, more, out in zip(whole.shape[2:], extra, wanted[-axes:], strict=True)]
    small = [(total // 2, total - total // 2) for total in totals]
    return small if auto == "SAME_UPPER" else [(last, first) for first, last in small]


def gemm(node: Node, inputs: Inputs) -> Tensor:
    """α A B + β C."""
    a, b, c = inputs[0], inputs[1], optional_input(inputs, 2)
    plain = not node.get("transA", 0) and node.get("alpha", 1.0) == node.get("beta", 1.0) == 1
    if plain and (c is None or c.ndim == 1):
        return functional.linear(a, b if node.get("transB", 0) else b.t(), c)
    a = a.t() if node.get("transA", 0) else a
    b = b.t() if node.get("transB", 0) else b
    product: Tensor = node.get("alpha", 1.0) * (a @ b)
    return product if c is None else product + node.get("beta", 1.0) * c


def einsum(node: Node, inputs: Inputs) -> Tensor:
    """Einstein's sum, in the notation that torch shares."""
    return torch.einsum(node.get("equation", ""), *inputs)


def _dimensions(weight: Tensor) -> int:
    axes = weight.ndim - 2
    if axes not in CONVOLUTIONS:
        raise ValueError(f"a convolution in {axes} dimensions, 1 to 3 are covered")
    return axes
