"""Add: sum of two tensors; with a constant it is an Affine."""

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
        """One loop over each channel."""
        return binary("add", inputs, output, self.act)


def add(builder: GraphBuilder, node: Any) -> None:
    """Add of two tensors, or of a tensor and constants that vary by channel at most."""
    which = constant_operand(builder, node)
    if which is None:
        append_binary(builder, node, Add)
    else:
        append_affine(builder, node, which)


ONNX = {"Add": add}
