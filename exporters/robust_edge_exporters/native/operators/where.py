"""Where with a constant condition: elements of one tensor, or a constant value, as a view."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from robust_edge_exporters.native.builder import GraphBuilder, unsupported


def where(builder: GraphBuilder, node: Any) -> None:
    """Import Where, one of whose branches is a single constant value."""
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


ONNX = {"Where": where}
