"""Add: the sum of two tensors; the sum with a constant is an Affine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from robust_edge_exporters.native import ir
from robust_edge_exporters.native.builder import GraphBuilder
from robust_edge_exporters.native.geometry import Tensor
from robust_edge_exporters.native.operators.affine import append_affine, constant_operand
from robust_edge_exporters.native.operators.elementwise import append_binary, binary


@dataclass(frozen=True)
class Add(ir.Op):
    """Sum of two tensors; the second may hold one value per channel."""

    def calls(self, inputs: tuple[Tensor, ...], output: Tensor) -> tuple[ir.Call, ...]:
        """One call, which loops over the channels."""
        return binary("add", inputs, output, self.act)


def add(builder: GraphBuilder, node: Any) -> None:
    """Import Add of two tensors, or of a tensor and a constant with one value or one per channel."""
    which = constant_operand(builder, node)
    if which is None:
        append_binary(builder, node, Add)
    else:
        append_affine(builder, node, which)


ONNX = {"Add": add}
