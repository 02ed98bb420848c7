"""Views: tensors of ONNX whose elements are those of another tensor in another order, and the copy into that order.

Reshape, Transpose, Slice, Pad and the like compute nothing: they say which element of a tensor is where. A view holds
that as an array of indices, on which every such operator is one line of NumPy. Nothing is copied until an operator
reads a view whose order is not the tensor's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from robust_edge_exporters.native import ir
from robust_edge_exporters.native.geometry import Shape, Tensor

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class View:
    """A tensor (N, ...) of ONNX, element by element.

    Attributes:
        tensor: name of the tensor that holds the elements.
        index: (N, ...) position of each element among the N * floats elements of that tensor; -1: it is `fill`.
        fill: value of the elements that are not in the tensor.
    """

    tensor: str
    index: Indices
    fill: float = 0.0

    def permutes(self, shape: Shape) -> bool:
        """Whether the view has each element of its tensor, which has `shape`, once."""
        size = self.index.shape[0] * shape.floats
        return self.index.size == size and np.array_equal(np.sort(self.index, axis=None), np.arange(size))


@dataclass(frozen=True)
class Tables:
    """Positions of a copy: out[c][y][x] = in[channels[c] + rows[y] + columns[x]], in floats; None is outside."""

    channels: tuple[int | None, ...]
    rows: tuple[int | None, ...]
    columns: tuple[int | None, ...]


@dataclass(frozen=True, kw_only=True)
class Rearrange(ir.Op):
    """A copy of the elements of a tensor in another order; elements outside have the value `fill`."""

    tables: Tables
    fill: float = 0.0

    fuses_activation: ClassVar[bool] = False

    def calls(self, inputs: tuple[Tensor, ...], output: Tensor) -> tuple[ir.Call, ...]:
        """One call, which copies plane by plane or element by element."""
        t = self.tables
        fields: dict[str, object] = {"in": inputs[0], "out": output, "fill": np.float32(self.fill)}
        for name, offsets in (("channels", t.channels), ("rows", t.rows), ("columns", t.columns)):
            fields[name] = tuple("OUTSIDE" if offset is None else offset for offset in offsets)
        whole = t.columns == tuple(range(output.width)) and t.rows == tuple(
            range(0, output.height * output.width, output.width)
        )
        return (ir.Call("rearrange", "rearrange", fields | {"whole_planes": int(whole)}),)


def dims_of(shape: Shape, batch: int) -> tuple[int, ...]:
    """Dimensions in ONNX of a tensor of `shape`."""
    return (batch, shape.channels) if shape.flat else (batch, shape.channels, shape.height, shape.width)


def shape_of(dims: tuple[int, ...]) -> Shape:
    """Shape of a tensor of dimensions (N, K), (N, C, L) or (N, C, H, W) in ONNX."""
    return Shape(dims[1], flat=True) if len(dims) == 2 else Shape(dims[1], dims[-2] if len(dims) == 4 else 1, dims[-1])


def identity(shape: Shape, batch: int) -> Indices:
    """The index of a tensor in its own order."""
    dims = dims_of(shape, batch)
    return np.arange(np.prod(dims), dtype=np.int64).reshape(dims)


def image_index(index: Indices, floats: int) -> Indices | None:
    """The index (...) of one image, for all images; None if images differ or read each other.

    Args:
        index: (N, ...) index of all images.
        floats: elements of one image of the tensor.
    """
    first = index[0]
    expected = np.where(first < 0, -1, first + floats * np.arange(len(index)).reshape(-1, *(1,) * first.ndim))
    inside = first.max(initial=-1) < floats
    return first if inside and np.array_equal(index, expected) else None


def tables_of(index: Indices, source: Tensor) -> Tables | None:
    """Split the positions of a copy into those of channels, rows and columns; None if they do not add up.

    Positions (1, 1, K) always do.

    Args:
        index: (C, H, W) positions of one image in the order of elements.
        source: layout of the tensor that is read.
    """
    pixels = source.height * source.width
    floats = np.where(index < 0, 0, index // pixels * source.pitch + index % pixels)
    inside = index >= 0
    if not inside.any():
        return Tables(*((None,) * size for size in index.shape))
    at = tuple(int(axis[0]) for axis in np.nonzero(inside))
    parts: list[npt.NDArray[Any]] = []
    reached = []
    for axis in range(3):
        line = tuple(slice(None) if k == axis else at[k] for k in range(3))
        parts.append(floats[line] - (floats[at] if axis else 0))
        reached.append(inside[line])
    total = parts[0][:, None, None] + parts[1][:, None] + parts[2]
    all_inside = reached[0][:, None, None] & reached[1][:, None] & reached[2]
    if not (np.array_equal(all_inside, inside) and np.array_equal(total[inside], floats[inside])):
        return None
    return Tables(*(
        tuple(int(offset) if ok else None for offset, ok in zip(part, mask, strict=True))
        for part, mask in zip(parts, reached, strict=True)
    ))  # fmt: skip
