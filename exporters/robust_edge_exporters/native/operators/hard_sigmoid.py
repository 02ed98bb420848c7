"""HardSigmoid: a scale and a shift, which the layer before it takes in, and a clip to [0, 1]."""

from __future__ import annotations

from typing import Any

import numpy as np

from robust_edge_exporters.native import ir
from robust_edge_exporters.native.builder import GraphBuilder, attributes, names
from robust_edge_exporters.native.geometry import Shape
from robust_edge_exporters.native.operators.activate import Activate
from robust_edge_exporters.native.operators.affine import Affine


def hard_sigmoid(builder: GraphBuilder, node: Any) -> None:
    """Import HardSigmoid: min(max(alpha * x + beta, 0), 1)."""
    values, inner = attributes(node), builder.new_name(node.output[0])

    def scaled(source: str) -> ir.Op:
        channels = builder.shapes[source].channels
        scale, shift = (
            np.full(channels, values.get(name, default), np.float32)
            for name, default in (("alpha", 0.2), ("beta", 0.5))
        )
        affine = Affine(f"{names(node)[0]}:scaled", (source,), inner, scale=scale, shift=shift)
        builder.append(affine, Shape(*builder.shapes[source].dims, flat=builder.shapes[source].flat))
        return Activate(*names(node, inner), ir.Activation(ir.Kind.CLAMP, 0.0, 1.0))

    builder.append_elementwise(node, 0, scaled)


ONNX = {"HardSigmoid": hard_sigmoid}
