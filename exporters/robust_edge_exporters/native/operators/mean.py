"""Mean: the mean of each plane."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from robust_edge_exporters.native import ir
from robust_edge_exporters.native.builder import GraphBuilder, attributes, names, unsupported
from robust_edge_exporters.native.geometry import Shape, Tensor
from robust_edge_exporters.native.operators.elementwise import elementwise


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
    source = builder.tensor(node, 0)
    builder.append(Mean(*names(node, source)), Shape(builder.shapes[source].channels))


def reduce_mean(builder: GraphBuilder, node: Any) -> None:
    """Import ReduceMean over height and width."""
    source, values = builder.tensor(node, 0), attributes(node)
    shape, given = builder.shapes[source], builder.constant(node, 1)
    axes = sorted(int(a) % 4 for a in (values.get("axes", ()) if given is None else given.reshape(-1)))
    if shape.flat or axes != [2, 3]:
        raise unsupported(node, f"over axes {axes}: only over height and width")
    builder.append(Mean(*names(node, source)), Shape(shape.channels, flat=not values.get("keepdims", 1)))


ONNX = {"GlobalAveragePool": global_average_pool, "ReduceMean": reduce_mean}
