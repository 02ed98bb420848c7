"""Operators that move, copy, cut and join values, and those that compute shapes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from robust_edge.onnx_graph.operators.node import Inputs, Node, counted_from_start, ints, optional_input


def constant(node: Node, inputs: Inputs) -> Tensor:
    """A tensor, a number or a list of numbers."""
    kinds = {"value_float": torch.float32, "value_floats": torch.float32, "value_int": torch.int64}
    kinds |= {"value_ints": torch.int64}
    for name, kind in kinds.items():
        if name in node.attributes:
            return torch.tensor(node.attributes[name], dtype=kind)
    return node.attributes["value"]  # type: ignore[no-any-return]


def constant_of_shape(node: Node, inputs: Inputs) -> Tensor:
    """One value everywhere."""
    value = node.get("value", torch.zeros(1))
    return value.reshape(()).expand(_sizes(inputs[0])).clone()  # type: ignore[no-any-return]


def shape_of(node: Node, inputs: Inputs) -> Tensor:
    """Sizes of the axes from `start` to `end`."""
    return torch.tensor(inputs[0].shape[node.get("start", 0) : node.get("end", None)], dtype=torch.int64)


def size_of(node: Node, inputs: Inputs) -> Tensor:
    """Number of elements."""
    return torch.tensor(inputs[0].numel(), dtype=torch.int64)


def arange(node: Node, inputs: Inputs) -> Tensor:
    """From start to limit in steps of delta."""
    return torch.arange(*(value.item() for value in inputs), dtype=inputs[0].dtype)


def reshape(node: Node, inputs: Inputs) -> Tensor:
    """Reshape; a size of 0 means the input's size on that axis, unless zeros are allowed."""
    x, wanted = inputs[0], ints(node, inputs, "shape") or []
    if not node.get("allowzero", 0):
        wanted = [x.shape[i] if size == 0 else size for i, size in enumerate(wanted)]
    shaped: Tensor = x.reshape(wanted)
    return shaped


def flatten(node: Node, inputs: Inputs) -> Tensor:
    """To two axes, the second from `axis` on."""
    axis = node.get("axis", 1)
    axis = axis + inputs[0].ndim if axis < 0 else axis
    shaped: Tensor = inputs[0].reshape(math.prod(inputs[0].shape[:axis]), -1)
    return shaped


def transpose(node: Node, inputs: Inputs) -> Tensor:
    """Reverses the axes unless an order is given."""
    order = node.get("perm", None) or list(reversed(range(inputs[0].ndim)))
    turned: Tensor = inputs[0].permute(order)
    return turned


def squeeze(node: Node, inputs: Inputs) -> Tensor:
    """Remove axes of size 1."""
    axes = ints(node, inputs, "axes") or [i for i, size in enumerate(inputs[0].shape) if size == 1]
    shaped: Tensor = inputs[0].squeeze(tuple(axes))
    return shaped


def unsqueeze(node: Node, inputs: Inputs) -> Tensor:
    """Insert axes of size 1, at positions of the result."""
    axes = ints(node, inputs, "axes") or []
    x, total = inputs[0], inputs[0].ndim + len(axes)
    for axis in sorted(axis % total for axis in axes):
        x = x.unsqueeze(axis)
    return x  # type: ignore[no-any-return]


def concat(node: Node, inputs: Inputs) -> Tensor:
    """Concatenate along an axis; a tensor for a single image, such as a class token, is repeated for every image."""
    axis = node.get("axis", 0) % inputs[0].ndim
    for other in (k for k in range(inputs[0].ndim) if k != axis):
        counts = [
            value.shape[other] for value in inputs
        ]  # not len(), for which torch.export fixes the number of images
        inputs = [
            value.expand([-1 if k != other else max(counts) for k in range(value.ndim)])
            if count == 1 < max(counts)
            else value
            for value, count in zip(inputs, counts, strict=True)
        ]
    return torch.cat(list(inputs), dim=axis)


def split(node: Node, inputs: Inputs) -> tuple[Tensor, ...]:
    """Split into the given sizes, or into one part per output, of which the last may be smaller."""
    x, axis = inputs[0], node.get("axis", 0)
    sizes = ints(node, inputs, "split")
    length = math.ceil(x.shape[axis] / len(node.outputs))
    parts: tuple[Tensor, ...] = x.split(length if sizes is None else sizes, axis)
    return parts


def slice_of(node: Node, inputs: Inputs) -> Tensor:
    """Starts, ends and steps per axis, as Python counts them."""
    x = inputs[0]
    starts, ends = ints(node, inputs, "starts", 1) or [], ints(node, inputs, "ends", 2) or []
    axes = ints(node, inputs, "axes", 3) or list(range(len(starts)))
    steps = ints(node, inputs, "steps", 4) or [1] * len(starts)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        chosen = range(x.shape[axis])[start:end:step]
        if step > 0:
            x = x[(slice(None),) * (axis % x.ndim) + (slice(chosen.start, chosen.stop, step),)]
        else:
            x = x.index_select(axis, torch.tensor(list(chosen), device=x.device))
    return x  # type: ignore[no-any-return]


def gather(node: Node, inputs: Inputs) -> Tensor:
    """Slices along an axis, by indices of any shape."""
    x, axis = inputs[0], node.get("axis", 0) % inputs[0].ndim
    indices = counted_from_start(inputs[1], x.shape[axis])
    chosen = x.index_select(axis, indices.reshape(-1))
    return chosen.reshape((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))  # type: ignore[no-any-return]


def gather_nd(node: Node, inputs: Inputs) -> Tensor:
    """Elements or slices at indices (..., K) of the first K axes that no batch takes."""
    (x, indices), axis = inputs, node.get("batch_dims", 0)
    places = [counted_from_start(column, x.shape[axis + k]) for k, column in enumerate(indices.unbind(-1))]
    batch = [
        torch.arange(size, device=x.device).reshape(-1, *(1,) * (places[0].ndim - k - 1))
        for k, size in enumerate(x.shape[:axis])
    ]
    chosen: Tensor = x[tuple([*batch, *places])]
    return chosen


def gather_elements(node: Node, inputs: Inputs) -> Tensor:
    """One value for each index."""
    axis = node.get("axis", 0)
    chosen: Tensor = torch.gather(inputs[0], axis, counted_from_start(inputs[1], inputs[0].shape[axis]))
    return chosen


def expand(node: Node, inputs: Inputs) -> Tensor:
    """Broadcast both ways."""
    x = inputs[0]
    return x.expand(torch.broadcast_shapes(x.shape, _sizes(inputs[1])))  # type: ignore[no-any-return]


def tile(node: Node, inputs: Inputs) -> Tensor:
    """Repeat along each axis."""
    return inputs[0].repeat(_sizes(inputs[1]))  # type: ignore[no-any-return]


def trilu(node: Node, inputs: Inputs) -> Tensor:
    """The upper or the lower triangle."""
    k = optional_input(inputs, 1)
    function = torch.triu if node.get("upper", 1) else torch.tril
    return function(inputs[0], 0 if k is None else int(k.item()))


def depth_to_space(node: Node, inputs: Inputs) -> Tensor:
    """Blocks of channels to blocks of pixels; the channels of a block come first or last (mode DCR or CRD)."""
    x, size = inputs[0], node.get("blocksize", None)
    n, channels, height, width = x.shape
    inner = channels // size**2
    if node.get("mode", "DCR") == "DCR":
        parts = x.reshape(n, size, size, inner, height, width).permute(0, 3, 4, 1, 5, 2)
    else:
        parts = x.reshape(n, inner, size, size, height, width).permute(0, 1, 4, 2, 5, 3)
    shaped: Tensor = parts.reshape(n, inner, height * size, width * size)
    return shaped


def space_to_depth(node: Node, inputs: Inputs) -> Tensor:
    """Blocks of pixels to channels."""
    x, size = inputs[0], node.get("blocksize", None)
    n, channels, height, width = x.shape
    parts = x.reshape(n, channels, height // size, size, width // size, size).permute(0, 3, 5, 1, 2, 4)
    shaped: Tensor = parts.reshape(n, channels * size**2, height // size, width // size)
    return shaped


def pad(node: Node, inputs: Inputs) -> Tensor:
    """With a constant, or by values of the input: mirrored, the nearest, or from the other end."""
    x, mode = inputs[0], node.get("mode", "constant")
    pads = ints(node, inputs, "pads") or []
    axes = ints(node, inputs, "axes", 3) or list(range(len(pads) // 2))
    sizes = dict(
        zip((axis % x.ndim for axis in axes), zip(pads[: len(axes)], pads[len(axes) :], strict=True), strict=True)
    )
    if mode == "constant":
        value = optional_input(inputs, 2)
        fill = node.get("value", 0.0) if value is None else float(value)
        ends = [size for axis in reversed(range(x.ndim)) for size in sizes.get(axis, (0, 0))]
        return functional.pad(x, ends, value=fill)
    for axis, (first, last) in sizes.items():
        if first or last:
            x = x.index_select(axis, _indices(mode, x.shape[axis], first, last).to(x.device))
    return x  # type: ignore[no-any-return]


def _indices(mode: str, size: int, first: int, last: int) -> Tensor:
    """Positions along an axis that is padded by its own values."""
    places = torch.arange(-first, size + last)
    if mode == "edge":
        return places.clamp(0, size - 1)
    if mode == "wrap":
        return places % size
    if mode != "reflect":
        raise ValueError(f"of mode {mode!r}, which is not covered")
    period = max(2 * (size - 1), 1)
    return (size - 1) - ((places % period) - (size - 1)).abs()


def _sizes(values: Tensor) -> Sequence[int]:
    return [int(item) for item in values.reshape(-1).tolist()]
