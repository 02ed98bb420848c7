"""Flatten and Reshape: an image becomes a vector, or a view of other dimensions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from robust_edge_exporters.native import ir
from robust_edge_exporters.native.builder import GraphBuilder, attributes, names, unsupported
from robust_edge_exporters.native.geometry import Shape, Tensor
from robust_edge_exporters.native.operators.elementwise import elementwise
from robust_edge_exporters.native.views import Indices, identity


@dataclass(frozen=True)
class Flatten(ir.Op):
    """(C, H, W) to a vector of C·H·W features."""

    fuses_activation: ClassVar[bool] = False

    def calls(self, inputs: tuple[Tensor, ...], output: Tensor) -> tuple[ir.Call, ...]:
        """One call, which copies the planes without padding between them."""
        (source,) = inputs
        target = replace(source, offset=output.offset, pitch=source.height * source.width, image=output.image)
        return (elementwise("copy", source, target, self.act),)


def flatten(builder: GraphBuilder, node: Any) -> None:
    """Import Flatten from axis 1 on."""
    axis, rank = attributes(node).get("axis", 1), len(builder.dims(node, 0))
    if axis not in (1, 1 - rank):
        raise unsupported(node, "only axis 1")
    index = builder.view(node, 0).index
    append_reordered(builder, node, index.reshape(len(index), -1))


def reshape(builder: GraphBuilder, node: Any) -> None:
    """Import Reshape. A first size of 1 means any number of images, since networks are often traced with one image."""
    index = builder.view(node, 0).index
    target = [int(size) for size in builder.required(node, 1).reshape(-1)]
    if not attributes(node).get("allowzero", 0):
        target = [index.shape[axis] if size == 0 else size for axis, size in enumerate(target)]
    if len(target) > 1 and target[0] == 1:
        target[0] = builder.batch
    try:
        moved = index.reshape(target)
    except ValueError as cause:
        raise unsupported(node, f"from {index.shape} to {target}") from cause
    append_reordered(builder, node, moved)


def append_reordered(builder: GraphBuilder, node: Any, index: Indices) -> None:
    """Append a Flatten if an image becomes a vector in its own order; otherwise name a view."""
    view = builder.view(node, 0)
    shape = builder.shapes[view.tensor]
    plain = not builder.is_view(node, 0) and index.shape == (builder.batch, shape.floats)
    if plain and not shape.flat and np.array_equal(index, identity(Shape(shape.floats, flat=True), builder.batch)):
        builder.append(Flatten(*names(node, view.tensor)), Shape(shape.floats, flat=True))
    else:
        builder.add_view(node.output[0], replace(view, index=index))


ONNX = {"Flatten": flatten, "Reshape": reshape}
