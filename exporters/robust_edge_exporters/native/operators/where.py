"""Where with a constant condition: elements of one tensor, or a constant value, as a view.

torch writes softplus as Where(x > 20, x, Softplus(x)), whose branches are equal there in float32.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from robust_edge_exporters.native import ir
from robust_edge_exporters.native.builder import GraphBuilder, unsupported
from robust_edge_exporters.native.operators.affine import Affine
from robust_edge_exporters.native.operators.softplus import Softplus

LINEAR_FROM = 15.0
"""Where softplus(x) is x in float32: log(1 + exp(-15)) is 3e-7."""


def greater(builder: GraphBuilder, node: Any) -> None:
    """Import Greater of a tensor and a constant value: only a Where of softplus reads it."""
    limit = builder.required(node, 1)
    if limit.size != 1:
        raise unsupported(node, f"constant of shape {limit.shape}: only one value")
    builder.above[node.output[0]] = builder.resolved(node, 0), float(limit.item())


def where(builder: GraphBuilder, node: Any) -> None:
    """Import Where, one of whose branches is a single constant value, or which is a softplus."""
    if node.input[0] in builder.above:
        compared, limit = builder.above[node.input[0]]
        large, softplus = (builder.resolved(node, index) for index in (1, 2))
        if limit < LINEAR_FROM or not is_softplus(builder, compared, large, softplus):
            raise unsupported(node, "only softplus is computed with a condition that depends on the image")
        builder.aliases[node.output[0]] = softplus
        return
    condition = builder.required(node, 0).astype(bool)
    which = next((index for index in (1, 2) if node.input[index] in builder.constants), None)
    if which is None:
        raise unsupported(node, "of two computed tensors")
    value, view = builder.required(node, which), builder.view(node, 3 - which)
    values = np.unique(value)
    if len(values) != 1:
        raise unsupported(node, f"constant of shape {value.shape}: only one value")
    fill = float(values.item())
    if fill != view.fill and (view.index < 0).any():
        raise unsupported(node, f"puts {fill} into what is padded with {view.fill} already")
    constant = condition if which == 1 else ~condition
    mask, index = np.broadcast_arrays(
        np.broadcast_to(constant, np.broadcast_shapes(constant.shape, value.shape)), view.index
    )
    builder.add_view(node.output[0], replace(view, index=np.where(mask, -1, index), fill=fill))


def is_softplus(builder: GraphBuilder, compared: str, x: str, y: str) -> bool:
    """Whether y is Softplus(compared) / b and compared is b * x."""
    ops = {op.output: op for op in builder.ops}
    divided, before = ops.get(y), ops.get(compared)
    op = ops.get(divided.inputs[0]) if isinstance(divided, Affine) else divided
    if not isinstance(op, Softplus) or op.inputs != (compared,):
        return False
    factors = [item for item in (divided, before if compared != x else None) if isinstance(item, Affine)]
    plain = compared == x or (isinstance(before, Affine) and before.inputs == (x,))
    return plain and not any(item.shift.any() for item in factors) and is_one([item.scale for item in factors])


def is_one(factors: list[ir.Array]) -> bool:
    """Whether the product of all factors is 1, up to rounding."""
    return bool(np.allclose(np.prod(factors, axis=0), 1, rtol=1e-6))


ONNX = {"Greater": greater, "Where": where}
