"""Shared by element-wise operators: the C struct elementwise, and the import of binary nodes."""

from __future__ import annotations

from typing import Any

from robust_edge_exporters.native import ir
from robust_edge_exporters.native.builder import GraphBuilder, names, unsupported
from robust_edge_exporters.native.geometry import Tensor


def elementwise(function: str, source: Tensor, output: Tensor, act: ir.Activation, **more: object) -> ir.Call:
    """A call of a C function with a struct elementwise."""
    return ir.Call(function, "elementwise", {"in": source, "out": output, "act": act, **more})


def binary(function: str, inputs: tuple[Tensor, ...], output: Tensor, act: ir.Activation) -> tuple[ir.Call, ...]:
    """A call of a binary C function; the second tensor may have one value per channel."""
    first, second = inputs
    broadcast = (second.height, second.width) != (first.height, first.width)
    return (elementwise(function, first, output, act, second=second, broadcast=int(broadcast)),)


def append_binary(builder: GraphBuilder, node: Any, kind: type[ir.Op]) -> None:
    """Append an operator of class `kind` on two tensors of equal shapes, or one with one value per channel."""
    first, second = builder.tensor(node, 0), builder.tensor(node, 1)
    if builder.shapes[first].pixels < builder.shapes[second].pixels:
        first, second = second, first
    a, b = builder.shapes[first], builder.shapes[second]
    if a.flat != b.flat or a.channels != b.channels or (a != b and b.pixels != 1):
        raise unsupported(node, f"shapes {a} and {b}: only equal ones, or one value per channel")
    builder.append(kind(*names(node, first, second)), a)
