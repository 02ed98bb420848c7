"""Identity, and Dropout in inference mode: another name for a tensor."""

from __future__ import annotations

from typing import Any

import numpy as np

from robust_edge_exporters.native.builder import GraphBuilder, unsupported


def identity(builder: GraphBuilder, node: Any) -> None:
    """Import Identity or Dropout: its output is an alias of its input."""
    if node.op_type == "Dropout" and np.any(builder.constant(node, 2)):
        raise unsupported(node, "in training mode; export the network in evaluation mode")
    if node.input[0] in builder.constants:
        builder.constants[node.output[0]] = builder.constants[node.input[0]]
    else:
        builder.aliases[node.output[0]] = builder.tensor(node, 0)


ONNX = {"Dropout": identity, "Identity": identity}
