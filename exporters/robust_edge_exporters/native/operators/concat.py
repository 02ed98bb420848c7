"""Concat: concatenation along the channels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from robust_edge_exporters.native import ir
from robust_edge_exporters.native.builder import GraphBuilder, attributes, names, unsupported
from robust_edge_exporters.native.geometry import Shape, Tensor
from robust_edge_exporters.native.operators.constant_tensor import as_tensor
from robust_edge_exporters.native.operators.elementwise import elementwise
from robust_edge_exporters.native.views import identity


@dataclass(frozen=True)
class Concat(ir.Op):
    """Concatenation of images along the channels, or of vectors along the features."""

    fuses_activation: ClassVar[bool] = False

    def calls(self, inputs: tuple[Tensor, ...], output: Tensor) -> tuple[ir.Call, ...]:
        """One call per input, which copies it."""
        calls, offset = [], output.offset
        for source in inputs:
            target = replace(source, offset=offset, image=output.image)
            calls.append(elementwise("copy", source, target, self.act))
            offset += source.width if output.flat else source.channels * source.pitch
        return tuple(calls)


def concat(builder: GraphBuilder, node: Any) -> None:
    """Import Concat along any axis but that of the images; a copy makes any other axis the channels."""
    for which, name in enumerate(node.input):
        if name in builder.constants:
            as_tensor(builder, node, which, builder.constants[name])
    rank = len(builder.dims(node, 0))
    axis = attributes(node)["axis"] % rank
    moved = [axis if k == 1 else k - (1 < k <= axis) for k in range(rank)]
    plain = axis == 1 and not any(builder.is_view(node, index) for index in range(len(node.input)))
    if plain:
        sources = tuple(builder.tensor(node, index) for index in range(len(node.input)))
    elif axis == 0 or rank > 4:
        raise unsupported(node, f"along axis {axis} of {rank}")
    else:
        views = [builder.view(node, index) for index in range(len(node.input))]
        sources = tuple(builder.stored(node, replace(v, index=v.index.transpose(moved))) for v in views)
    shapes = [builder.shapes[name] for name in sources]
    first = shapes[0]
    if any((s.height, s.width, s.flat) != (first.height, first.width, first.flat) for s in shapes):
        raise unsupported(node, f"of {shapes}: only planes of equal sizes")
    shape = Shape(sum(s.channels for s in shapes), first.height, first.width, first.flat)
    order = None
    if not plain:
        index = identity(shape, builder.batch)
        order = (index[:, :, 0] if rank == 3 else index).transpose(np.argsort(moved))
    builder.append(Concat(*names(node, *sources)), shape, order)


ONNX = {"Concat": concat}
