"""Softplus and Mish, which is x * tanh(softplus(x))."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from robust_edge_exporters.native.builder import GraphBuilder, names
from robust_edge_exporters.native.operators.elementwise import Elementwise


@dataclass(frozen=True)
class Softplus(Elementwise):
    """log(1 + exp(x))."""

    function: ClassVar[str] = "softplus"


@dataclass(frozen=True)
class Mish(Elementwise):
    """x * tanh(log(1 + exp(x)))."""

    function: ClassVar[str] = "mish"


def softplus(builder: GraphBuilder, node: Any) -> None:
    """Import Softplus."""
    builder.append_elementwise(node, 0, lambda source: Softplus(*names(node, source)))


def mish(builder: GraphBuilder, node: Any) -> None:
    """Import Mish."""
    builder.append_elementwise(node, 0, lambda source: Mish(*names(node, source)))


ONNX = {"Mish": mish, "Softplus": softplus}
