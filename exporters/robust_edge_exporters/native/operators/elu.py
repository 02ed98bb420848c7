"""Elu, Selu and Celu: linear where x is positive, exponential elsewhere."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from robust_edge_exporters.native import ir
from robust_edge_exporters.native.builder import GraphBuilder, attributes, names
from robust_edge_exporters.native.geometry import Shape, Tensor
from robust_edge_exporters.native.operators.affine import Affine
from robust_edge_exporters.native.operators.elementwise import Elementwise, elementwise

SELU_ALPHA, SELU_GAMMA = 1.6732631921768188, 1.0507010221481323  # the defaults of ONNX


@dataclass(frozen=True, kw_only=True)
class Elu(Elementwise):
    """x where it is positive, alpha * (exp(x) - 1) elsewhere."""

    alpha: float

    function: ClassVar[str] = "elu"

    def calls(self, inputs: tuple[Tensor, ...], output: Tensor) -> tuple[ir.Call, ...]:
        """One call, which loops over the channels."""
        return (elementwise("elu", inputs[0], output, self.act, scale=np.array([self.alpha], np.float32)),)


def elu(builder: GraphBuilder, node: Any) -> None:
    """Import Elu."""
    alpha = attributes(node).get("alpha", 1.0)
    builder.append_elementwise(node, 0, lambda source: Elu(*names(node, source), alpha=alpha))


def selu(builder: GraphBuilder, node: Any) -> None:
    """Import Selu: an Elu, times gamma."""
    values = attributes(node)
    alpha, gamma = values.get("alpha", SELU_ALPHA), values.get("gamma", SELU_GAMMA)

    def scaled(source: str) -> ir.Op:
        inner = appended(builder, Elu(*names(node, source), alpha=alpha), "elu")
        return times(builder, node, inner, gamma)

    builder.append_elementwise(node, 0, scaled)


def celu(builder: GraphBuilder, node: Any) -> None:
    """Import Celu: alpha * Elu(x / alpha)."""
    alpha = attributes(node).get("alpha", 1.0)

    def scaled(source: str) -> ir.Op:
        divided = appended(builder, times(builder, node, source, 1 / alpha), "divided")
        inner = appended(builder, Elu(*names(node, divided), alpha=1.0), "elu")
        return times(builder, node, inner, alpha)

    builder.append_elementwise(node, 0, scaled)


def times(builder: GraphBuilder, node: Any, source: str, factor: float) -> Affine:
    """The product of a tensor and a number."""
    scale = np.full(builder.shapes[source].channels, factor, np.float32)
    return Affine(*names(node, source), scale=scale, shift=np.zeros_like(scale))


def appended(builder: GraphBuilder, op: ir.Op, stem: str) -> str:
    """Append one of several operators of a node; returns the name of its output."""
    output, shape = builder.new_name(op.output), builder.shapes[op.inputs[0]]
    builder.append(replace(op, name=f"{op.name}:{stem}", output=output), Shape(*shape.dims, flat=shape.flat))
    return output


ONNX = {"Celu": celu, "Elu": elu, "Selu": selu}
