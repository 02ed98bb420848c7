"""PRelu: a leaky ReLU with one slope per channel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from robust_edge_exporters.native import ir
from robust_edge_exporters.native.builder import GraphBuilder, float32, names
from robust_edge_exporters.native.geometry import Tensor
from robust_edge_exporters.native.operators.affine import features, per_channel
from robust_edge_exporters.native.operators.elementwise import Elementwise, elementwise


@dataclass(frozen=True, kw_only=True)
class PRelu(Elementwise):
    """x, times slope (C,) where it is negative."""

    slope: ir.Array

    function: ClassVar[str] = "prelu"

    @property
    def constants(self) -> tuple[ir.Array, ...]:
        """The slope."""
        return (self.slope,)

    def calls(self, inputs: tuple[Tensor, ...], output: Tensor) -> tuple[ir.Call, ...]:
        """One call, which loops over the channels, or over the features of a vector."""
        source, target = (features(t) if output.flat else t for t in (inputs[0], output))
        return (elementwise("prelu", source, target, self.act, scale=self.slope),)


def prelu(builder: GraphBuilder, node: Any) -> None:
    """Import PRelu with one slope, or one per channel."""
    builder.required(node, 1)
    slope = float32(per_channel(builder, node, 0, node.input[1]))
    builder.append_elementwise(node, 0, lambda source: PRelu(*names(node, source), slope=slope))


ONNX = {"PRelu": prelu}
