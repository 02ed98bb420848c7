"""Operators that compute every element by itself, and arithmetic of shapes."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from robust_edge.onnx_graph.operators.node import Inputs, Node, Operator, channelwise, optional_input, straight_through

FLOAT, UINT8, INT8, INT32, INT64, BOOL, HALF, DOUBLE, BFLOAT16 = 1, 2, 3, 6, 7, 9, 10, 11, 16  # of onnx.TensorProto


def unary(function: Callable[[Tensor], Tensor]) -> Operator:
    """An operator of one input without attributes."""
    return lambda node, inputs: function(inputs[0])


def binary(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    """An operator of two inputs that broadcast."""
    return lambda node, inputs: function(inputs[0], inputs[1])


def variadic(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    """An operator that joins any number of inputs that broadcast."""
    return lambda node, inputs: functools.reduce(function, inputs)


def mean(node: Node, inputs: Inputs) -> Tensor:
    """Of any number of inputs that broadcast."""
    total: Tensor = functools.reduce(torch.add, inputs)
    return total / len(inputs)


def div(node: Node, inputs: Inputs) -> Tensor:
    """Integers are divided towards zero."""
    a, b = inputs
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


def mod(node: Node, inputs: Inputs) -> Tensor:
    """The remainder, with the sign of the divisor, or of the dividend for fmod."""
    return torch.fmod(*inputs) if node.get("fmod", 0) else torch.remainder(*inputs)


def power(node: Node, inputs: Inputs) -> Tensor:
    """Has the type of the base."""
    value: Tensor = torch.pow(inputs[0], inputs[1]).to(inputs[0].dtype)
    return value


def clip(node: Node, inputs: Inputs) -> Tensor:
    """Bounds are attributes before opset 11."""
    x, low, high = inputs[0], optional_input(inputs, 1), optional_input(inputs, 2)
    low = node.get("min", -math.inf) if low is None else low
    high = node.get("max", math.inf) if high is None else high
    return torch.clamp(x, torch.as_tensor(low, dtype=x.dtype), torch.as_tensor(high, dtype=x.dtype))


def elu(node: Node, inputs: Inputs) -> Tensor:
    """α (exp(x) − 1) below zero."""
    return functional.elu(inputs[0], node.get("alpha", 1.0))


def celu(node: Node, inputs: Inputs) -> Tensor:
    """α (exp(x/α) − 1) below zero."""
    return functional.celu(inputs[0], node.get("alpha", 1.0))


def selu(node: Node, inputs: Inputs) -> Tensor:
    """γ x above zero, γ α (exp(x) − 1) below."""
    alpha, gamma = node.get("alpha", 1.67326319217681884765625), node.get("gamma", 1.05070102214813232421875)
    value: Tensor = gamma * functional.elu(inputs[0], alpha)
    return value


def leaky_relu(node: Node, inputs: Inputs) -> Tensor:
    """α x below zero."""
    return functional.leaky_relu(inputs[0], node.get("alpha", 0.01))


def prelu(node: Node, inputs: Inputs) -> Tensor:
    """Like LeakyRelu, with a slope that broadcasts."""
    x, slope = inputs
    sizes = [1] * (x.ndim - slope.ndim) + list(slope.shape)
    if slope.numel() == 1 or sizes == [1, x.shape[1], *[1] * (x.ndim - 2)]:
        return functional.prelu(x, slope.reshape(-1))  # which exporters write as one node
    return torch.where(x < 0, slope * x, x)


def thresholded_relu(node: Node, inputs: Inputs) -> Tensor:
    """Zero up to α, x above."""
    return torch.where(inputs[0] > node.get("alpha", 1.0), inputs[0], torch.zeros_like(inputs[0]))


def hard_sigmoid(node: Node, inputs: Inputs) -> Tensor:
    """α x + β, clipped to [0, 1]."""
    alpha, beta = node.get("alpha", 0.2), node.get("beta", 0.5)
    if abs(alpha - 1 / 6) < 1e-7 and beta == 0.5:
        return functional.hardsigmoid(inputs[0])  # which exporters write as one node
    return torch.clamp(alpha * inputs[0] + beta, 0, 1)


def hard_swish(node: Node, inputs: Inputs) -> Tensor:
    """The product x (x/6 + 1/2), the second factor clipped to [0, 1]."""
    return functional.hardswish(inputs[0])


def gelu(node: Node, inputs: Inputs) -> Tensor:
    """Exact, or by tanh."""
    return functional.gelu(inputs[0], approximate=node.get("approximate", "none"))


def swish(node: Node, inputs: Inputs) -> Tensor:
    """The product x sigmoid(α x)."""
    value: Tensor = inputs[0] * torch.sigmoid(node.get("alpha", 1.0) * inputs[0])
    return value


def rounded(function: Callable[[Tensor], Tensor]) -> Operator:
    """To whole numbers, with a straight-through gradient."""
    return lambda node, inputs: straight_through(inputs[0], function(inputs[0]))


def sign(node: Node, inputs: Inputs) -> Tensor:
    """−1, 0 or 1; its gradient is 1 for inputs from −1 to 1, and 0 elsewhere.

    Source: Hubara et al. 2016, "Binarized Neural Networks", Eq. (4).
    """
    return straight_through(torch.clamp(inputs[0], -1, 1), torch.sign(inputs[0]))


def cast(node: Node, inputs: Inputs) -> Tensor:
    """All floats are float32 here; 16 bits are rounded with a straight-through gradient."""
    to, x = node.get("to", None), inputs[0]
    if to in (FLOAT, DOUBLE):
        return x.float()  # type: ignore[no-any-return]
    if to in (HALF, BFLOAT16):
        return straight_through(x.float(), x.to(torch.float16 if to == HALF else torch.bfloat16).float())
    kinds = {INT64: torch.int64, INT32: torch.int32, BOOL: torch.bool}
    if to not in kinds:
        raise ValueError(f"to type {to}, only floats, 32 and 64 bit integers and bool are covered")
    return x.to(kinds[to])  # type: ignore[no-any-return]


def cast_like(node: Node, inputs: Inputs) -> Tensor:
    """To the type of the second input."""
    return inputs[0].to(inputs[1].dtype)  # type: ignore[no-any-return]


def quantize(node: Node, inputs: Inputs) -> Tensor:
    """8 bits as float32 tensors of whole numbers, so that gradients can flow through them."""
    x, scale, zero = inputs[0], inputs[1], optional_input(inputs, 2)
    kind = torch.uint8 if zero is None else zero.dtype
    if kind not in (torch.uint8, torch.int8):
        raise ValueError(f"to {kind}, only 8 bits are covered")
    low, high = torch.iinfo(kind).min, torch.iinfo(kind).max
    shift = 0.0 if zero is None else _along(node, zero.float(), x)
    scaled = x / _along(node, scale, x)
    # clamp before rounding: its gradient is zero outside the range, where the artifact is saturated
    inside = torch.clamp(scaled + shift, low, high)
    return straight_through(inside, torch.clamp(torch.round(scaled) + shift, low, high))


def dequantize(node: Node, inputs: Inputs) -> Tensor:
    """(x − zero point) × scale."""
    x, scale, zero = inputs[0], inputs[1], optional_input(inputs, 2)
    shift = 0.0 if zero is None else _along(node, zero.float(), x)
    value: Tensor = (x.to(scale.dtype) - shift) * _along(node, scale, x)
    return value


def _along(node: Node, values: Tensor, x: Tensor) -> Tensor:
    """One value for the whole tensor, or one per slice along the node's axis."""
    if values.numel() == 1:
        return values.reshape(())
    if node.get("block_size", 0) or values.ndim != 1:
        raise ValueError("scales by blocks are not covered")
    return channelwise(values, x, node.get("axis", 1))
