"""Silu: x * sigmoid(x), which ONNX before opset 24 writes as two nodes; a pass fuses them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from robust_edge_exporters.native.builder import GraphBuilder, attributes, names, unsupported
from robust_edge_exporters.native.operators.elementwise import Elementwise


@dataclass(frozen=True)
class Silu(Elementwise):
    """x / (1 + exp(-x))."""

    function: ClassVar[str] = "silu"


def swish(builder: GraphBuilder, node: Any) -> None:
    """Import Swish with alpha 1."""
    alpha = attributes(node).get("alpha", 1.0)
    if alpha != 1:
        raise unsupported(node, f"with alpha {alpha}: only 1")
    builder.append_elementwise(node, 0, lambda source: Silu(*names(node, source)))


ONNX = {"Swish": swish}
