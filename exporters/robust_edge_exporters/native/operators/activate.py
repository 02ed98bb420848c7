"""Activate: a separate activation function, which a pass fuses into the operator before it if possible."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from robust_edge_exporters.native import ir
from robust_edge_exporters.native.builder import GraphBuilder, Handler, attributes, names, unsupported
from robust_edge_exporters.native.geometry import Tensor
from robust_edge_exporters.native.operators.affine import constant_operand
from robust_edge_exporters.native.operators.elementwise import elementwise

FLOAT_MAX = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Activate(ir.Op):
    """An activation function as an operator of its own."""

    def calls(self, inputs: tuple[Tensor, ...], output: Tensor) -> tuple[ir.Call, ...]:
        """One call of the affine function, without scale and shift."""
        return (elementwise("affine", inputs[0], output, self.act),)


def handler(activation: Callable[[GraphBuilder, Any], ir.Activation]) -> Handler:
    """A handler that imports a node with the activation that `activation(node)` returns."""

    def handle(builder: GraphBuilder, node: Any) -> None:
        act = activation(builder, node)
        builder.append_elementwise(node, 0, lambda source: Activate(*names(node, source), act))

    return handle


def clip(builder: GraphBuilder, node: Any) -> ir.Activation:
    """Import Clip; a missing bound is ±FLOAT_MAX."""
    old = attributes(node)
    lo, hi = builder.constant(node, 1), builder.constant(node, 2)
    low = lo.item() if lo is not None else old.get("min", -FLOAT_MAX)
    high = hi.item() if hi is not None else old.get("max", FLOAT_MAX)
    return ir.Activation(ir.Kind.CLAMP, *(min(max(bound, -FLOAT_MAX), FLOAT_MAX) for bound in (low, high)))


def bound(builder: GraphBuilder, node: Any) -> None:
    """Import Max or Min of a tensor and one constant value, which cuts it off on one side."""
    which = constant_operand(builder, node)
    if which is None or len(node.input) != 2 or builder.required(node, which).size != 1:
        raise unsupported(node, "only of one tensor and one constant value")
    value = builder.required(node, which).item()
    bounds = (value, FLOAT_MAX) if node.op_type == "Max" else (-FLOAT_MAX, value)
    act = ir.Activation(ir.Kind.CLAMP, *bounds)
    builder.append_elementwise(node, 1 - which, lambda source: Activate(*names(node, source), act))


ONNX = {
    "Clip": handler(clip),
    "HardSwish": handler(lambda builder, node: ir.Activation(ir.Kind.HARD_SWISH)),
    "LeakyRelu": handler(lambda builder, node: ir.Activation(ir.Kind.LEAKY_RELU, attributes(node).get("alpha", 0.01))),
    "Max": bound,
    "Min": bound,
    "Relu": handler(lambda builder, node: ir.Activation(ir.Kind.CLAMP, 0.0, FLOAT_MAX)),
    "Sigmoid": handler(lambda builder, node: ir.Activation(ir.Kind.SIGMOID)),
}
