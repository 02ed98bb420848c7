"""Tanh: the hyperbolic tangent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from robust_edge_exporters.native.builder import GraphBuilder, names
from robust_edge_exporters.native.operators.elementwise import Elementwise


@dataclass(frozen=True)
class Tanh(Elementwise):
    """tanh(x)."""

    function: ClassVar[str] = "hyperbolic_tangent"


def tanh(builder: GraphBuilder, node: Any) -> None:
    """Import Tanh."""
    builder.append_elementwise(node, 0, lambda source: Tanh(*names(node, source)))


ONNX = {"Tanh": tanh}
