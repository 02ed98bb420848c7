"""Normalisation, and sums, means and maxima over axes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from robust_edge.onnx_graph.operators.node import Inputs, Node, Operator, ints, optional_input, padded


def batch_norm(node: Node, inputs: Inputs) -> Tensor:
    """By running statistics."""
    x, scale, bias, mean, variance = inputs
    if node.get("training_mode", 0):
        raise ValueError("in training mode; export the network in evaluation mode")
    return functional.batch_norm(x, mean, variance, scale, bias, False, 0.0, node.get("epsilon", 1e-5))


def instance_norm(node: Node, inputs: Inputs) -> Tensor:
    """Every channel of every image by its own mean and variance."""
    x, scale, bias = inputs
    return functional.instance_norm(x, weight=scale, bias=bias, eps=node.get("epsilon", 1e-5))


def group_norm(node: Node, inputs: Inputs) -> Tensor:
    """Scale and bias have one value per group before opset 21, one per channel since."""
    x, scale, bias = inputs
    groups = node.get("num_groups", None)
    if len(scale) != x.shape[1]:
        scale, bias = (value.repeat_interleave(x.shape[1] // groups) for value in (scale, bias))
    return functional.group_norm(x, groups, scale, bias, node.get("epsilon", 1e-5))


def layer_norm(node: Node, inputs: Inputs) -> Tensor:
    """Over the last axes, from `axis` on."""
    x, scale, bias = inputs[0], inputs[1], optional_input(inputs, 2)
    shape = x.shape[node.get("axis", -1) % x.ndim :]
    scale, bias = scale.expand(shape), None if bias is None else bias.expand(shape)
    return functional.layer_norm(x, shape, scale, bias, node.get("epsilon", 1e-5))


def rms_norm(node: Node, inputs: Inputs) -> Tensor:
    """Like LayerNormalization, without a mean."""
    x, scale = inputs
    return functional.rms_norm(x, x.shape[node.get("axis", -1) % x.ndim :], scale, node.get("epsilon", 1e-5))


def local_response_norm(node: Node, inputs: Inputs) -> Tensor:
    """Divide by (bias + α/size × squares of neighbouring channels)^β."""
    x, size = inputs[0], node.get("size", None)
    squares = padded(x.square().movedim(1, -1), [((size - 1) // 2, size - 1 - (size - 1) // 2)])
    sums = squares.unfold(-1, size, 1).sum(-1).movedim(-1, 1)
    scale = node.get("bias", 1.0) + node.get("alpha", 1e-4) / size * sums
    normed: Tensor = x / scale.pow(node.get("beta", 0.75))
    return normed


def mean_variance_norm(node: Node, inputs: Inputs) -> Tensor:
    """(x − mean) / deviation over the given axes."""
    x, axes = inputs[0], tuple(node.get("axes", [0, 2, 3]))
    centred = x - x.mean(axes, keepdim=True)
    normed: Tensor = centred / (centred.square().mean(axes, keepdim=True).sqrt() + 1e-9)
    return normed


def lp_norm(node: Node, inputs: Inputs) -> Tensor:
    """Divide by the ℓ1 or ℓ2 norm along an axis."""
    x = inputs[0]
    return x / x.norm(node.get("p", 2), node.get("axis", -1), keepdim=True)  # type: ignore[no-any-return]


def softmax(node: Node, inputs: Inputs) -> Tensor:
    """Along one axis; before opset 13 over all axes from that one on."""
    return _over_axis(node, inputs[0], torch.softmax)


def log_softmax(node: Node, inputs: Inputs) -> Tensor:
    """The logarithm of Softmax."""
    return _over_axis(node, inputs[0], torch.log_softmax)


def _over_axis(node: Node, x: Tensor, function: Callable[[Tensor, int], Tensor]) -> Tensor:
    if node.opset >= 13:
        return function(x, node.get("axis", -1))
    axis = node.get("axis", 1) % x.ndim
    return function(x.flatten(axis), axis).reshape(x.shape)


def reduction(function: Callable[[Tensor, tuple[int, ...], bool], Tensor]) -> Operator:
    """An operator that reduces axes by `function(x, axes, keepdim)`: all axes if none are named."""

    def reduce(node: Node, inputs: Inputs) -> Tensor:
        axes = ints(node, inputs, "axes")
        if not axes and node.get("noop_with_empty_axes", 0):
            return inputs[0]  # type: ignore[no-any-return]
        return function(inputs[0], tuple(axes or range(inputs[0].ndim)), bool(node.get("keepdims", 1)))

    return reduce


def product(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    """The product over several axes."""
    for axis in sorted((axis % x.ndim for axis in axes), reverse=True):
        x = x.prod(axis, keepdim=keep)
    return x


REDUCTIONS: dict[str, Operator] = {
    "ReduceL1": reduction(lambda x, axes, keep: x.abs().sum(axes, keep)),
    "ReduceL2": reduction(lambda x, axes, keep: x.square().sum(axes, keep).sqrt()),
    "ReduceLogSum": reduction(lambda x, axes, keep: x.sum(axes, keep).log()),
    "ReduceLogSumExp": reduction(lambda x, axes, keep: x.logsumexp(axes, keep)),
    "ReduceMax": reduction(lambda x, axes, keep: x.amax(axes, keep)),
    "ReduceMean": reduction(lambda x, axes, keep: x.mean(axes, keep)),
    "ReduceMin": reduction(lambda x, axes, keep: x.amin(axes, keep)),
    "ReduceProd": reduction(product),
    "ReduceSum": reduction(lambda x, axes, keep: x.sum(axes, keep)),
    "ReduceSumSquare": reduction(lambda x, axes, keep: x.square().sum(axes, keep)),
}
