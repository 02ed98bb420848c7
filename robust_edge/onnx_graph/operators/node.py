"""One operation of a graph, and what several operators read from it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

Inputs = Sequence[Any]
"""Tensors in the operator's order, None where an optional one is left out."""


@dataclasses.dataclass(frozen=True, eq=False)
class Node:
    """One operation of a graph.

    Attributes:
        inputs: names of tensors, "" where an optional one is left out.
        outputs: the same of what it writes.
        attributes: by name, tensors already as torch's.
        opset: the version that defines the operator.
    """

    operator: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]
    opset: int

    def get(self, name: str, default: Any) -> Any:
        """An attribute, or ONNX's default where it is left out; text is decoded."""
        value = self.attributes.get(name, default)
        return value.decode() if isinstance(value, bytes) else value


Operator = Callable[[Node, Inputs], "Tensor | tuple[Tensor, ...]"]
"""Computes the outputs of a node; a tuple where the operator has several."""


def optional_input(inputs: Inputs, position: int) -> Any:
    """An optional input, None where it is left out."""
    return inputs[position] if len(inputs) > position else None


def ints(node: Node, inputs: Inputs, name: str, position: int | None = 1) -> list[int] | None:
    """Integers that older opsets give as an attribute and newer ones as an input; None if they are left out."""
    value = None if position is None else optional_input(inputs, position)
    if value is not None:
        return [int(item) for item in value.reshape(-1).tolist()]
    found = node.get(name, None)
    return None if found is None else list(found)


def refuse(node: Node, **covered: Any) -> None:
    """Raise ValueError for an attribute that has another value than the one that is covered."""
    for name, value in covered.items():
        found = node.get(name, value)
        if list(found) != value if isinstance(value, list) else found != value:
            raise ValueError(f"{name} = {found} is not covered")


def window_pads(node: Node, x: Tensor, kernel: Sequence[int]) -> list[tuple[int, int]]:
    """Begin and end of the padding of each axis that a window slides along."""
    auto, axes = node.get("auto_pad", "NOTSET"), len(kernel)
    if auto == "VALID":
        return [(0, 0)] * axes
    if auto == "NOTSET":
        pads = list(node.get("pads", None) or [0] * (2 * axes))
        return list(zip(pads[:axes], pads[axes:], strict=True))
    strides, dilations = node.get("strides", [1] * axes), node.get("dilations", [1] * axes)
    found = []
    for size, length, stride, dilation in zip(x.shape[2:], kernel, strides, dilations, strict=True):
        total = max((math.ceil(size / stride) - 1) * stride + (length - 1) * dilation + 1 - size, 0)
        small, large = total // 2, total - total // 2
        found.append((small, large) if auto == "SAME_UPPER" else (large, small))
    return found


def padded(x: Tensor, pads: Sequence[tuple[int, int]], value: float = 0.0) -> Tensor:
    """Pad the last axes with a constant; negative sizes cut off."""
    if not any(size for pair in pads for size in pair):
        return x
    return functional.pad(x, [size for pair in reversed(pads) for size in pair], value=value)


def straight_through(smooth: Tensor, rounded: Tensor) -> Tensor:
    """The value of `rounded`, the gradient of `smooth`."""
    return rounded.detach() + (smooth - smooth.detach())


def channelwise(values: Tensor, x: Tensor, axis: int = 1) -> Tensor:
    """One value per channel, shaped so that it broadcasts over `x`."""
    shape = [1] * x.ndim
    shape[axis] = -1
    return values.reshape(shape)


def counted_from_start(indices: Tensor, size: int) -> Tensor:
    """Indices of an axis of a size, where negative ones count from its end."""
    return torch.where(indices < 0, indices + size, indices).long()
