"""LayerNorm: normalise the channels of each pixel, as LayerNormalization of channels-last images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from robust_edge_exporters.native.builder import GraphBuilder, attributes, float32, names, unsupported
from robust_edge_exporters.native.operators.linear import channels_first
from robust_edge_exporters.native.operators.normalisation import Normalisation, epsilon_of
from robust_edge_exporters.native.views import identity


@dataclass(frozen=True, kw_only=True)
class LayerNorm(Normalisation):
    """Mean and variance over the channels of a pixel."""

    function: ClassVar[str] = "layer_norm"


def layer_norm(builder: GraphBuilder, node: Any) -> None:
    """Import LayerNormalization over the last axis."""
    axis, rank = attributes(node).get("axis", -1), len(builder.dims(node, 0))
    if axis not in (-1, rank - 1):
        raise unsupported(node, f"from axis {axis}: only over the last one")
    source, order = channels_first(builder, node)
    shape, bias = builder.shapes[source], builder.constant(node, 2)
    op = LayerNorm(
        *names(node, source),
        scale=float32(np.broadcast_to(builder.required(node, 1), shape.channels)),
        shift=float32(np.broadcast_to(0 if bias is None else bias, shape.channels)),
        epsilon=epsilon_of(node),
    )
    builder.append(op, shape, order(identity(shape, builder.batch)))


ONNX = {"LayerNormalization": layer_norm}
