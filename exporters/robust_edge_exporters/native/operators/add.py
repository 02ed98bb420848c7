"""Add: the sum of two tensors; the sum with a constant per channel is an Affine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from robust_edge_exporters.native import ir
from robust_edge_exporters.native.builder import GraphBuilder
from robust_edge_exporters.native.geometry import Tensor
from robust_edge_exporters.native.operators.constant_tensor import append_sum_or_product
from robust_edge_exporters.native.operators.elementwise import binary


@dataclass(frozen=True)
class Add(ir.Op):
    """Sum of two tensors; the second may hold one value per channel."""

    def calls(self, inputs: tuple[Tensor, ...], output: Tensor) -> tuple[ir.Call, ...]:
        """One call, which loops over the channels."""
        return binary("add", inputs, output, self.act)


def add(builder: GraphBuilder, node: Any) -> None:
    """Import Add of two tensors, or of a tensor and a constant."""
    append_sum_or_product(builder, node, Add)


ONNX = {"Add": add}
