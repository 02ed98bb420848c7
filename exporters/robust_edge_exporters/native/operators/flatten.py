"""Flatten: an image becomes a vector."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from robust_edge_exporters.native import ir
from robust_edge_exporters.native.builder import GraphBuilder, attributes, names, unsupported
from robust_edge_exporters.native.geometry import Shape, Tensor
from robust_edge_exporters.native.operators.elementwise import elementwise


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
    axis, flat = attributes(node).get("axis", 1), builder.shapes[builder.tensor(node, 0)].flat
    if axis not in (1, -1 if flat else -3):
        raise unsupported(node, "only axis 1")
    append_reshape(builder, node, [0, -1])


def reshape(builder: GraphBuilder, node: Any) -> None:
    """Import Reshape to (N, features), or to the tensor's own shape."""
    append_reshape(builder, node, [int(size) for size in np.asarray(builder.constant(node, 1)).reshape(-1)])


def append_reshape(builder: GraphBuilder, node: Any, target: list[int]) -> None:
    """Append a Flatten, or nothing if the shape does not change."""
    source = builder.tensor(node, 0)
    shape, rest = builder.shapes[source], target[1:]
    dims = (shape.channels,) if shape.flat else (shape.channels, shape.height, shape.width)
    if len(rest) == len(dims) and all(a in (-1, b) for a, b in zip(rest, dims, strict=True)):
        builder.aliases[node.output[0]] = source
    elif len(rest) == 1 and rest[0] in (-1, shape.floats):
        builder.append(Flatten(*names(node, source)), Shape(shape.floats, flat=True))
    else:
        raise unsupported(node, f"to {target}: only (N, features)")


ONNX = {"Flatten": flatten, "Reshape": reshape}
