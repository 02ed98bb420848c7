"""Constants that operators read as tensors: of a concatenation, or added to and multiplied with a tensor."""

from __future__ import annotations

from typing import Any

import numpy as np

from robust_edge_exporters.native import ir
from robust_edge_exporters.native.builder import GraphBuilder, float32, unsupported
from robust_edge_exporters.native.geometry import Shape
from robust_edge_exporters.native.operators.affine import Affine, append_affine, constant_operand, one_per_channel
from robust_edge_exporters.native.operators.elementwise import append_binary
from robust_edge_exporters.native.views import Rearrange, Tables, View, identity


def append_sum_or_product(builder: GraphBuilder, node: Any, kind: type[ir.Op]) -> None:
    """Append an Affine if one operand is a constant with one value or one per channel, else an operator `kind`."""
    which = constant_operand(builder, node)
    if which is not None and one_per_channel(builder, node, 1 - which, node.input[which]) is not None:
        append_affine(builder, node, which)
        return
    if which is not None:
        dims = builder.view(node, 1 - which).index.shape
        as_tensor(builder, node, which, np.broadcast_to(builder.required(node, which), dims))
    append_binary(builder, node, kind)


def as_tensor(builder: GraphBuilder, node: Any, index: int, values: np.ndarray[Any, Any]) -> None:
    """Let operators read input `index`, a constant of (N, ...) values, as a tensor: zeros, plus those of one image.

    Raises:
        UnsupportedNode: the values of two images differ.
    """
    name = node.input[index]
    if len(values) != builder.batch or not (values == values[:1]).all():
        raise unsupported(node, f"constant {name} of dimensions {values.shape} is not the same for every image")
    image, zeros, vector = next(iter(builder.shapes)), builder.new_name(name), builder.new_name(f"{name}:constant")
    shift = float32(values[0].reshape(-1))
    shape, nowhere = Shape(len(shift), flat=True), Tables((None,), (None,), (None,) * len(shift))
    builder.append(Rearrange(zeros, (image,), zeros, tables=nowhere), shape)
    builder.append(Affine(vector, (zeros,), vector, scale=np.ones_like(shift), shift=shift), shape)
    builder.views[name] = View(vector, identity(shape, builder.batch).reshape(values.shape))
