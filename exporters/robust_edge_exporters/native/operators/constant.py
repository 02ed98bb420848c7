"""Constant: a tensor that is stored in the ONNX file."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from robust_edge_exporters.native.builder import GraphBuilder, attributes


def constant(builder: GraphBuilder, node: Any) -> None:
    """Import Constant: store its value in the builder; it is not an operator."""
    values = attributes(node)
    value = values["value"] if "value" in values else next(iter(values.values()))
    is_tensor = isinstance(value, onnx.TensorProto)
    builder.constants[node.output[0]] = numpy_helper.to_array(value) if is_tensor else np.asarray(value)


ONNX = {"Constant": constant}
