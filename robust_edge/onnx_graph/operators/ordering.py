"""Operators that sort, search, add up along an axis, and write into a copy."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from robust_edge.onnx_graph.operators.node import Inputs, Node, counted_from_start, optional_input


def top_k(node: Node, inputs: Inputs) -> tuple[Tensor, Tensor]:
    """The k largest or smallest values along an axis, and their positions."""
    k = int(inputs[1].item()) if len(inputs) > 1 else node.get("k", None)
    found = torch.topk(inputs[0], k, node.get("axis", -1), bool(node.get("largest", 1)), bool(node.get("sorted", 1)))
    return found.values, found.indices


def arg_max(node: Node, inputs: Inputs) -> Tensor:
    """The first position of the largest value along an axis."""
    return _position(node, inputs[0])


def arg_min(node: Node, inputs: Inputs) -> Tensor:
    """The first position of the smallest value along an axis."""
    return _position(node, -inputs[0])


def _position(node: Node, x: Tensor) -> Tensor:
    if node.get("select_last_index", 0):
        raise ValueError("select_last_index = 1 is not covered")
    found: Tensor = x.argmax(node.get("axis", 0), keepdim=bool(node.get("keepdims", 1)))
    return found


def cumulative_sum(node: Node, inputs: Inputs) -> Tensor:
    """Of all values up to each one along an axis, itself included or not, from either end."""
    x, axis = inputs[0], int(inputs[1].item())
    x = x.flip(axis) if node.get("reverse", 0) else x
    total: Tensor = x.cumsum(axis)
    total = total - x if node.get("exclusive", 0) else total
    return total.flip(axis) if node.get("reverse", 0) else total


def scatter_nd(node: Node, inputs: Inputs) -> Tensor:
    """A copy with other values at indices (..., K) of the first K axes."""
    x, indices, updates = inputs
    columns = [counted_from_start(column, x.shape[axis]) for axis, column in enumerate(indices.unbind(-1))]
    written: Tensor = x.index_put(columns, _reduced(node, x[tuple(columns)], updates))
    return written


def _reduced(node: Node, old: Tensor, new: Tensor) -> Tensor:
    reduction = node.get("reduction", "none")
    if reduction == "none":
        return new
    functions: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "add": torch.add, "mul": torch.mul, "max": torch.maximum, "min": torch.minimum,
    }  # fmt: skip
    return functions[reduction](old, new)


def scatter_elements(node: Node, inputs: Inputs) -> Tensor:
    """A copy with other values at one position along an axis for each."""
    x, indices, updates = inputs
    axis = node.get("axis", 0)
    places = counted_from_start(indices, x.shape[axis])
    written: Tensor = x.scatter(axis, places, _reduced(node, x.gather(axis, places), updates))
    return written


def one_hot(node: Node, inputs: Inputs) -> Tensor:
    """One value at a position of a new axis, another one elsewhere."""
    indices, depth, values = inputs
    axis = node.get("axis", -1)
    places = counted_from_start(indices, int(depth)).unsqueeze(axis)
    shape = [1] * places.ndim
    shape[axis] = -1
    return torch.where(places == torch.arange(int(depth), device=places.device).reshape(shape), values[1], values[0])


def grid_sample(node: Node, inputs: Inputs) -> Tensor:
    """Values at the positions of a grid, between pixels."""
    names = {"linear": "bilinear", "cubic": "bicubic"}
    mode = node.get("mode", "linear")
    return torch.nn.functional.grid_sample(
        inputs[0],
        inputs[1],
        names.get(mode, mode),
        node.get("padding_mode", "zeros"),
        bool(node.get("align_corners", 0)),
    )


def fourier(node: Node, inputs: Inputs) -> Tensor:
    """The discrete Fourier transform along one axis; the last axis holds real and imaginary parts."""
    x, length, axis = inputs[0], optional_input(inputs, 1), optional_input(inputs, 2)
    axis = node.get("axis", 1) if axis is None else int(axis.item())
    value = torch.complex(x[..., 0], x[..., 1]) if x.shape[-1] == 2 else x[..., 0].to(torch.complex64)
    axis = axis + x.ndim if axis < 0 else axis
    n = None if length is None else int(length.item())
    if node.get("inverse", 0) and node.get("onesided", 0):
        real: Tensor = torch.fft.irfft(value, n, axis)
        return real.unsqueeze(-1)
    function = torch.fft.ifft if node.get("inverse", 0) else torch.fft.fft
    found: Tensor = function(value, n, axis)
    kept = found.narrow(axis, 0, found.shape[axis] // 2 + 1) if node.get("onesided", 0) else found
    return torch.view_as_real(kept)
