"""Concat: concatenation along the channels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from robust_edge_exporters.native import ir
from robust_edge_exporters.native.builder import GraphBuilder, attributes, names, unsupported
from robust_edge_exporters.native.geometry import Shape, Tensor
from robust_edge_exporters.native.operators.elementwise import elementwise


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
    """Import Concat of tensors with equal height and width."""
    sources = tuple(builder.tensor(node, index) for index in range(len(node.input)))
    shapes = [builder.shapes[name] for name in sources]
    first = shapes[0]
    axis = attributes(node)["axis"] % (2 if first.flat else 4)
    if axis != 1 or any((s.height, s.width, s.flat) != (first.height, first.width, first.flat) for s in shapes):
        raise unsupported(node, f"axis {axis} of {shapes}: only along channels, of equal planes")
    shape = Shape(sum(s.channels for s in shapes), first.height, first.width, first.flat)
    builder.append(Concat(*names(node, *sources)), shape)


ONNX = {"Concat": concat}
