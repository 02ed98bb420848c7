"""Gelu, and Erf, as which ONNX before opset 20 writes it; a pass fuses those nodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from robust_edge_exporters.native.builder import GraphBuilder, attributes, names
from robust_edge_exporters.native.operators.elementwise import Elementwise


@dataclass(frozen=True)
class Gelu(Elementwise):
    """x * (1 + erf(x / sqrt(2))) / 2."""

    function: ClassVar[str] = "gelu"


@dataclass(frozen=True)
class GeluTanh(Elementwise):
    """GELU in the approximation by tanh."""

    function: ClassVar[str] = "gelu_tanh"


@dataclass(frozen=True)
class Erf(Elementwise):
    """The error function."""

    function: ClassVar[str] = "error"


def gelu(builder: GraphBuilder, node: Any) -> None:
    """Import Gelu in both approximations."""
    kind = GeluTanh if attributes(node).get("approximate", "none") == "tanh" else Gelu
    builder.append_elementwise(node, 0, lambda source: kind(*names(node, source)))


def erf(builder: GraphBuilder, node: Any) -> None:
    """Import Erf."""
    builder.append_elementwise(node, 0, lambda source: Erf(*names(node, source)))


ONNX = {"Erf": erf, "Gelu": gelu}
