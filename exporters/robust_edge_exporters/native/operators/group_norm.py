"""GroupNorm: normalise groups of planes; InstanceNormalization has one plane in each group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from robust_edge_exporters.native import ir
from robust_edge_exporters.native.builder import GraphBuilder, attributes, float32, names, unsupported
from robust_edge_exporters.native.geometry import Shape
from robust_edge_exporters.native.operators.normalisation import Normalisation, epsilon_of


@dataclass(frozen=True, kw_only=True)
class GroupNorm(Normalisation):
    """Mean and variance over all pixels of `groups` groups of channels."""

    function: ClassVar[str] = "group_norm"


def group_norm(builder: GraphBuilder, node: Any) -> None:
    """Import GroupNormalization, whose scale and bias belong to channels or, in opset 18, to groups."""
    source = builder.tensor(node, 0)
    append_group_norm(builder, node, source, attributes(node)["num_groups"])


def instance_norm(builder: GraphBuilder, node: Any) -> None:
    """Import InstanceNormalization, also of (N, groups, ...), as which group normalisation is written."""
    view = builder.view(node, 0)
    if not np.array_equal(view.index.reshape(-1), np.arange(builder.batch * builder.shapes[view.tensor].floats)):
        builder.tensor(node, 0)
    append_group_norm(builder, node, builder.view(node, 0).tensor, builder.dims(node, 0)[1])


def append_group_norm(builder: GraphBuilder, node: Any, source: str, groups: int) -> None:
    """Append the normalisation of groups of channels of `source`, the tensor whose elements input 0 lists."""
    shape = builder.shapes[source]
    if shape.channels % groups:
        raise unsupported(node, f"of {groups} groups of {shape.channels} channels")
    scale, shift = (per_channel(node, builder.required(node, index), shape) for index in (1, 2))
    op = GroupNorm(*names(node, source), groups=groups, scale=scale, shift=shift, epsilon=epsilon_of(node))
    builder.append(op, shape, builder.view(node, 0).index)


def per_channel(node: Any, values: np.ndarray[Any, Any], shape: Shape) -> ir.Array:
    """Values of groups or channels as (C,)."""
    if shape.channels % values.size:
        raise unsupported(node, f"{values.size} values for {shape.channels} channels")
    return float32(np.repeat(values.reshape(-1), shape.channels // values.size))


ONNX = {"GroupNormalization": group_norm, "InstanceNormalization": instance_norm}
