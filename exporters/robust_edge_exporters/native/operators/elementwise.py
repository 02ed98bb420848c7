"""Shared by element-wise operators: functions of one tensor, the C struct elementwise, the import of binary nodes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from robust_edge_exporters.native import ir
from robust_edge_exporters.native.builder import GraphBuilder, names, unsupported
from robust_edge_exporters.native.geometry import Tensor


@dataclass(frozen=True)
class Elementwise(ir.Op):
    """A function of each element; the C function has the name `function`."""

    function: ClassVar[str]
    fuses_activation: ClassVar[bool] = False

    @property
    def overwrites(self) -> str | None:
        """The input, each element of which is read just before the same one is written."""
        return self.inputs[0]

    def calls(self, inputs: tuple[Tensor, ...], output: Tensor) -> tuple[ir.Call, ...]:
        """One call, which loops over the channels."""
        return (elementwise(self.function, inputs[0], output, self.act),)


def elementwise(function: str, source: Tensor, output: Tensor, act: ir.Activation, **more: object) -> ir.Call:
    """A call of a C function with a struct elementwise."""
    return ir.Call(function, "elementwise", {"in": source, "out": output, "act": act, **more})


def binary(function: str, inputs: tuple[Tensor, ...], output: Tensor, act: ir.Activation) -> tuple[ir.Call, ...]:
    """A call of a binary C function; the second tensor may have one value per channel."""
    first, second = inputs
    broadcast = (second.height, second.width) != (first.height, first.width)
    return (elementwise(function, first, output, act, second=second, broadcast=int(broadcast)),)


def append_binary(builder: GraphBuilder, node: Any, kind: type[ir.Op]) -> None:
    """Append an operator of class `kind` on two tensors of equal dimensions, or one with one value per channel.

    Other tensors are repeated along the axes in which they have one element.
    """
    same = builder.is_view(node, 0) and builder.is_view(node, 1) and in_equal_order(builder, node)
    if same:
        views = [builder.view(node, index) for index in (0, 1)]
        op = kind(*names(node, *(view.tensor for view in views)))
        builder.append(op, builder.shapes[views[0].tensor], views[0].index)
        return
    first, second = broadcast(builder, node)
    builder.append(
        kind(*names(node, first, second)), builder.shapes[first], builder.row_order(node, builder.shapes[first])
    )


def in_equal_order(builder: GraphBuilder, node: Any) -> bool:
    """Whether both operands list the elements of tensors of equal shapes in the same order."""
    a, b = (builder.view(node, index) for index in (0, 1))
    shape = builder.shapes[a.tensor]
    return shape == builder.shapes[b.tensor] and np.array_equal(a.index, b.index) and a.permutes(shape)


def broadcast(builder: GraphBuilder, node: Any) -> tuple[str, str]:
    """Two tensors of equal shapes, or the second with one value per channel."""
    pair = [builder.tensor(node, index) for index in (0, 1)]
    pair.sort(key=lambda name: -builder.shapes[name].pixels)
    a, b = (builder.shapes[name] for name in pair)
    if a == b or (not a.flat and not b.flat and a.channels == b.channels and b.pixels == 1):
        return pair[0], pair[1]
    views = [builder.view(node, index) for index in (0, 1)]
    try:
        indices = np.broadcast_arrays(*(view.index for view in views))
    except ValueError as cause:
        dims = " and ".join(str(view.index.shape) for view in views)
        raise unsupported(node, f"dimensions {dims} do not fit") from cause
    first, second = (builder.stored(node, replace(v, index=i)) for v, i in zip(views, indices, strict=True))
    return first, second
