"""Pooling over windows, and over everything."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from robust_edge.onnx_graph.operators.node import Inputs, Node, padded, window_pads

AVERAGE = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}
LARGEST = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}
Pads = list[tuple[int, int]]


def average_pool(node: Node, inputs: Inputs) -> Tensor:
    """The mean of a window over the positions that count: those of the image, and of the padding if it counts.

    torch pools without dilation; a dilated mean is a convolution with equal weights.
    """
    x, kernel = inputs[0], node.get("kernel_shape", None)
    pads = window_pads(node, x, kernel)
    beyond = _beyond(node, x, kernel, pads)
    if _pools_alike(node, kernel, pads, beyond) and set(node.get("dilations", [1])) == {1}:
        own, counts = [first for first, _ in pads], bool(node.get("count_include_pad", 0))
        return AVERAGE[len(kernel)](x, list(kernel), node.get("strides", [1] * len(kernel)), own, False, counts)
    counted = torch.ones_like(x[:1, :1])
    counted = padded(counted, pads, float(bool(node.get("count_include_pad", 0))))
    sums = [_mean(node, padded(value, beyond), kernel) for value in (padded(x, pads), counted)]
    return sums[0] / sums[1]


def max_pool(node: Node, inputs: Inputs) -> Tensor:
    """The maximum of a window; padding never wins."""
    x, kernel = inputs[0], node.get("kernel_shape", None)
    axes = len(kernel)
    pads = window_pads(node, x, kernel)
    beyond = _beyond(node, x, kernel, pads)
    own = [0] * axes
    if _pools_alike(node, kernel, pads, beyond):
        own = [first for first, _ in pads]
    else:
        x = padded(padded(x, pads, -math.inf), beyond, -math.inf)
    strides, dilations = node.get("strides", [1] * axes), node.get("dilations", [1] * axes)
    pooled: Tensor = LARGEST[axes](x, kernel, strides, own, dilations)
    return pooled


def global_average(node: Node, inputs: Inputs) -> Tensor:
    """The mean over all positions."""
    mean: Tensor = inputs[0].mean(tuple(range(2, inputs[0].ndim)), keepdim=True)
    return mean


def global_max(node: Node, inputs: Inputs) -> Tensor:
    """The maximum over all positions."""
    largest: Tensor = inputs[0].amax(tuple(range(2, inputs[0].ndim)), keepdim=True)
    return largest


def _pools_alike(node: Node, kernel: Sequence[int], pads: Pads, beyond: Pads) -> bool:
    """Whether torch pools with this padding, so that the network can be exported with one node for it."""
    symmetric = all(first == last <= length // 2 for (first, last), length in zip(pads, kernel, strict=True))
    return symmetric and not any(last for _, last in beyond)


def _mean(node: Node, x: Tensor, kernel: Sequence[int]) -> Tensor:
    axes = len(kernel)
    strides, dilations = node.get("strides", [1] * axes), node.get("dilations", [1] * axes)
    if all(step == 1 for step in dilations):
        return AVERAGE[axes](x, list(kernel), strides)
    for axis, (length, stride, dilation) in enumerate(zip(kernel, strides, dilations, strict=True), start=2):
        x = x.unfold(axis, (length - 1) * dilation + 1, stride)[..., ::dilation].mean(-1)
    return x


def _beyond(node: Node, x: Tensor, kernel: Sequence[int], pads: Pads) -> Pads:
    """How far the last windows of ceil_mode reach beyond the padding; a window must start inside of image or begin."""
    axes = len(kernel)
    if not node.get("ceil_mode", 0):
        return [(0, 0)] * axes
    strides, dilations = node.get("strides", [1] * axes), node.get("dilations", [1] * axes)
    found = []
    for size, length, stride, dilation, (first, last) in zip(
        x.shape[2:], kernel, strides, dilations, pads, strict=True
    ):
        reach, whole = (length - 1) * dilation + 1, size + first + last
        count = math.ceil((whole - reach) / stride) + 1
        count -= (count - 1) * stride >= size + first
        found.append((0, max((count - 1) * stride + reach - whole, 0)))
    return found
