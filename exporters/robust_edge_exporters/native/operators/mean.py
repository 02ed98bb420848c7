"""Mean: the mean of each plane."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from robust_edge_exporters.native import ir
from robust_edge_exporters.native.builder import GraphBuilder, attributes, names, unsupported
from robust_edge_exporters.native.geometry import Shape, Tensor
from robust_edge_exporters.native.operators.elementwise import elementwise
from robust_edge_exporters.native.views import identity


@dataclass(frozen=True)
class Mean(ir.Op):
    """The mean of each plane, as planes of one pixel or as a vector."""

    def calls(self, inputs: tuple[Tensor, ...], output: Tensor) -> tuple[ir.Call, ...]:
        """One call, which sums each plane."""
        pitch = 1 if output.flat else output.pitch
        view = Tensor(output.offset, inputs[0].channels, 1, 1, pitch, output.image)
        return (elementwise("mean", inputs[0], view, self.act),)


def global_average_pool(builder: GraphBuilder, node: Any) -> None:
    """Import GlobalAveragePool."""
    append_reduced(builder, node, tuple(range(2, len(builder.dims(node, 0)))), Mean, keep_axes=True)


def reduce_mean(builder: GraphBuilder, node: Any) -> None:
    """Import ReduceMean."""
    append_reduced(
        builder, node, reduced_axes(builder, node), Mean, keep_axes=bool(attributes(node).get("keepdims", 1))
    )


def reduced_axes(builder: GraphBuilder, node: Any) -> tuple[int, ...]:
    """The axes of a reduction, which may not be that of the images."""
    rank = len(builder.dims(node, 0))
    axes = tuple(sorted(axis % rank for axis in builder.integers(node, 1, "axes") or range(rank)))
    if 0 in axes:
        raise unsupported(node, f"over axes {axes}: not over the images of a batch")
    return axes


def append_reduced(
    builder: GraphBuilder, node: Any, axes: tuple[int, ...], kind: Callable[..., ir.Op], *, keep_axes: bool
) -> None:
    """Append an operator that reduces planes to one pixel, each channel of which holds the elements along `axes`."""
    view = builder.view(node, 0)
    index, dims = view.index, view.index.shape
    kept = [axis for axis in range(1, len(dims)) if axis not in axes]
    channels = int(np.prod([dims[axis] for axis in kept]))
    if axes == (2, 3):
        source = builder.tensor(node, 0)
    else:
        planes = index.transpose(0, *kept, *axes).reshape(len(index), channels, -1, dims[axes[-1]])
        source = builder.stored(node, replace(view, index=planes))
    flat = kind is Mean and not keep_axes and len(kept) == 1
    output = Shape(channels, flat=flat)
    left = [1 if axis in axes else size for axis, size in enumerate(dims) if keep_axes or axis not in axes]
    builder.append(kind(*names(node, source)), output, identity(output, builder.batch).reshape(left))


ONNX = {"GlobalAveragePool": global_average_pool, "ReduceMean": reduce_mean}
