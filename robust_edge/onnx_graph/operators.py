"""ONNX operators in torch, one function each.

8-bit tensors are represented as float32 tensors of whole numbers, so that gradients can flow through them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

FLOAT, HALF, DOUBLE = 1, 10, 11  # of onnx.TensorProto

Inputs = Sequence[Any]
"""Tensors in the operator's order, None where an optional one is left out."""


@dataclasses.dataclass(frozen=True, eq=False)
class Node:
    """One operation of a graph.

    Attributes:
        inputs: names of tensors, "" where an optional one is left out.
        attributes: by name, tensors already as torch's.
        opset: the version that defines the operator.
    """

    operator: str
    name: str
    inputs: tuple[str, ...]
    output: str
    attributes: dict[str, Any]
    opset: int

    def get(self, name: str, default: Any) -> Any:
        """An attribute, or ONNX's default where it is left out; text is decoded."""
        value = self.attributes.get(name, default)
        return value.decode() if isinstance(value, bytes) else value


def _conv(node: Node, inputs: Inputs) -> Tensor:
    x, weight, bias = (*inputs, None)[:3]
    if weight.ndim != 4:
        raise ValueError(f"a convolution in {weight.ndim - 2} dimensions, 2 are covered")
    x = functional.pad(x, _padding(node, 2))
    strides, dilations = node.get("strides", [1, 1]), node.get("dilations", [1, 1])
    return functional.conv2d(x, weight, bias, strides, 0, dilations, node.get("group", 1))


def _gemm(node: Node, inputs: Inputs) -> Tensor:
    a, b, c = (*inputs, None)[:3]
    a = a.t() if node.get("transA", 0) else a
    b = b.t() if node.get("transB", 0) else b
    product: Tensor = node.get("alpha", 1.0) * (a @ b)
    return product if c is None else product + node.get("beta", 1.0) * c


def _clip(node: Node, inputs: Inputs) -> Tensor:
    x, low, high = (*inputs, None, None)[:3]
    low = node.get("min", -math.inf) if low is None else low
    high = node.get("max", math.inf) if high is None else high
    return torch.clamp(x, torch.as_tensor(low), torch.as_tensor(high))


def _reduce_mean(node: Node, inputs: Inputs) -> Tensor:
    axes = node.get("axes", None) if len(inputs) < 2 or inputs[1] is None else inputs[1].tolist()
    keep = bool(node.get("keepdims", 1))
    if not axes:
        if node.get("noop_with_empty_axes", 0):
            return inputs[0]  # type: ignore[no-any-return]
        axes = list(range(inputs[0].ndim))
    mean: Tensor = inputs[0].mean(tuple(axes), keepdim=keep)
    return mean


def _reshape(node: Node, inputs: Inputs) -> Tensor:
    x, wanted = inputs[0], inputs[1].tolist()
    if not node.get("allowzero", 0):
        wanted = [x.shape[i] if size == 0 else size for i, size in enumerate(wanted)]
    shaped: Tensor = x.reshape(wanted)
    return shaped


def _flatten(node: Node, inputs: Inputs) -> Tensor:
    axis = node.get("axis", 1)
    axis = axis + inputs[0].ndim if axis < 0 else axis
    shaped: Tensor = inputs[0].reshape(math.prod(inputs[0].shape[:axis]), -1)
    return shaped


def _average_pool(node: Node, inputs: Inputs) -> Tensor:
    pads = _padding(node, 2)
    _refuse(node, dilations=[1, 1])
    _refuse(node, ceil_mode=0)
    x, kernel, strides = inputs[0], node.get("kernel_shape", None), node.get("strides", [1, 1])
    if any(pads) and not node.get("count_include_pad", 0):
        ones = functional.avg_pool2d(functional.pad(torch.ones_like(x[:1, :1]), pads), kernel, strides)
        return functional.avg_pool2d(functional.pad(x, pads), kernel, strides) / ones
    return functional.avg_pool2d(functional.pad(x, pads), kernel, strides)


def _max_pool(node: Node, inputs: Inputs) -> Tensor:
    _refuse(node, ceil_mode=0)
    x = functional.pad(inputs[0], _padding(node, 2), value=-math.inf)
    strides, dilations = node.get("strides", [1, 1]), node.get("dilations", [1, 1])
    return functional.max_pool2d(x, node.get("kernel_shape", None), strides, 0, dilations)


def _batch_norm(node: Node, inputs: Inputs) -> Tensor:
    x, scale, bias, mean, variance = inputs
    _refuse(node, training_mode=0)
    return functional.batch_norm(x, mean, variance, scale, bias, False, 0.0, node.get("epsilon", 1e-5))


def _cast(node: Node, inputs: Inputs) -> Tensor:
    to = node.get("to", None)
    if to in (FLOAT, DOUBLE):
        return inputs[0].float()  # type: ignore[no-any-return]
    if to == HALF:
        return _straight_through(inputs[0], inputs[0].half().float())
    raise ValueError(f"to type {to}, only floats are covered")


def _quantize(node: Node, inputs: Inputs) -> Tensor:
    x, scale, zero = (*inputs, None)[:3]
    kind = torch.uint8 if zero is None else zero.dtype
    if kind not in (torch.uint8, torch.int8):
        raise ValueError(f"to {kind}, only 8 bits are covered")
    low, high = torch.iinfo(kind).min, torch.iinfo(kind).max
    shift = 0.0 if zero is None else _along(node, zero.float(), x)
    scaled = x / _along(node, scale, x)
    # clamp before rounding: its gradient is zero outside the range, where the artifact is saturated
    inside = torch.clamp(scaled + shift, low, high)
    return _straight_through(inside, torch.clamp(torch.round(scaled) + shift, low, high))


def _dequantize(node: Node, inputs: Inputs) -> Tensor:
    x, scale, zero = (*inputs, None)[:3]
    shift = 0.0 if zero is None else _along(node, zero.float(), x)
    value: Tensor = (x.float() - shift) * _along(node, scale, x)
    return value


def _concat(node: Node, inputs: Inputs) -> Tensor:
    return torch.cat(list(inputs), dim=node.get("axis", 0))


def _transpose(node: Node, inputs: Inputs) -> Tensor:
    order = node.get("perm", None) or list(reversed(range(inputs[0].ndim)))
    turned: Tensor = inputs[0].permute(order)
    return turned


def _squeeze(node: Node, inputs: Inputs) -> Tensor:
    axes = _axes(node, inputs) or [i for i, size in enumerate(inputs[0].shape) if size == 1]
    shaped: Tensor = inputs[0].squeeze(tuple(axes))
    return shaped


def _unsqueeze(node: Node, inputs: Inputs) -> Tensor:
    axes = _axes(node, inputs)
    x, total = inputs[0], inputs[0].ndim + len(axes)
    for axis in sorted(axis % total for axis in axes):
        x = x.unsqueeze(axis)
    return x  # type: ignore[no-any-return]


def _pad(node: Node, inputs: Inputs) -> Tensor:
    mode = node.get("mode", "constant")
    if mode != "constant" or len(inputs) > 3:
        raise ValueError(f"of mode {mode!r} or along named axes, which is not covered")
    pads = inputs[1].tolist()
    value = 0.0 if len(inputs) < 3 or inputs[2] is None else float(inputs[2])
    half = len(pads) // 2
    ends = [size for i in reversed(range(half)) for size in (pads[i], pads[half + i])]
    return functional.pad(inputs[0], ends, value=value)


def _softmax(node: Node, inputs: Inputs) -> Tensor:
    axis = node.get("axis", -1 if node.opset >= 13 else 1)
    if node.opset < 13 and inputs[0].ndim != 2:
        raise ValueError("of opset 12 on more than two axes, which is not covered")
    return torch.softmax(inputs[0], axis)


def _hard_sigmoid(node: Node, inputs: Inputs) -> Tensor:
    return torch.clamp(node.get("alpha", 0.2) * inputs[0] + node.get("beta", 0.5), 0, 1)


def _hard_swish(node: Node, inputs: Inputs) -> Tensor:
    value: Tensor = inputs[0] * torch.clamp(inputs[0] / 6 + 0.5, 0, 1)
    return value


def _axes(node: Node, inputs: Inputs) -> list[int]:
    given = node.get("axes", None) if len(inputs) < 2 or inputs[1] is None else inputs[1].tolist()
    return list(given or [])


def _padding(node: Node, dimensions: int) -> list[int]:
    """In torch's order: the last axis first, its two ends side by side."""
    auto = node.get("auto_pad", "NOTSET")
    if auto not in ("NOTSET", "VALID"):
        raise ValueError(f"auto_pad {auto!r} is not covered")
    pads = node.get("pads", None) or [0] * (2 * dimensions)
    return [size for axis in reversed(range(dimensions)) for size in (pads[axis], pads[axis + dimensions])]


def _refuse(node: Node, **covered: Any) -> None:
    for name, value in covered.items():
        found = node.get(name, value)
        if list(found) != value if isinstance(value, list) else found != value:
            raise ValueError(f"{name} = {found} is not covered")


def _straight_through(smooth: Tensor, rounded: Tensor) -> Tensor:
    """The value of `rounded`, the gradient of `smooth`."""
    return rounded.detach() + (smooth - smooth.detach())


def _along(node: Node, values: Tensor, x: Tensor) -> Tensor:
    """One value for the whole tensor, or one per slice along the node's axis."""
    if values.numel() == 1:
        return values.reshape(())
    if node.get("block_size", 0) or values.ndim != 1:
        raise ValueError("scales by blocks are not covered")
    shape = [1] * x.ndim
    shape[node.get("axis", 1)] = -1
    return values.reshape(shape)


OPERATORS: dict[str, Callable[[Node, Inputs], Tensor]] = {
    "Add": lambda node, inputs: inputs[0] + inputs[1],
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": _concat,
    "Constant": lambda node, inputs: node.attributes["value"],
    "Conv": _conv,
    "DequantizeLinear": _dequantize,
    "Div": lambda node, inputs: inputs[0] / inputs[1],
    "Flatten": _flatten,
    "Gemm": _gemm,
    "GlobalAveragePool": lambda node, inputs: inputs[0].mean((2, 3), keepdim=True),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _hard_swish,
    "Identity": lambda node, inputs: inputs[0],
    "LeakyRelu": lambda node, inputs: functional.leaky_relu(inputs[0], node.get("alpha", 0.01)),
    "MatMul": lambda node, inputs: inputs[0] @ inputs[1],
    "MaxPool": _max_pool,
    "Mul": lambda node, inputs: inputs[0] * inputs[1],
    "Pad": _pad,
    "QuantizeLinear": _quantize,
    "ReduceMean": _reduce_mean,
    "Relu": lambda node, inputs: torch.relu(inputs[0]),
    "Reshape": _reshape,
    "Sigmoid": lambda node, inputs: torch.sigmoid(inputs[0]),
    "Softmax": _softmax,
    "Squeeze": _squeeze,
    "Sub": lambda node, inputs: inputs[0] - inputs[1],
    "Tanh": lambda node, inputs: torch.tanh(inputs[0]),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
