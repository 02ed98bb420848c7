"""The prunable weights that an ONNX program holds, and their number."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import numpy_helper

from robust_edge_runtimes.core.manifest import LayerCount, Sparsity

WEIGHTED = {"Conv", "ConvTranspose", "Einsum", "Gemm", "MatMul"}
PRODUCTS = {"Einsum", "Gemm", "MatMul"}
FIXED = "fixed."
"""How names of initializers start that are used like weights and are not prunable."""
TRANSPARENT = {"DequantizeLinear", "QuantizeLinear", "Cast", "Identity", "Transpose"}


def weights_of(program: Any) -> dict[str, np.ndarray]:
    """Prunable weights of convolutions and matrix products, as stored, in the order of the nodes."""
    initializers = {item.name: item for item in program.graph.initializer}
    producers = {name: node for node in program.graph.node for name in node.output}
    found = {}
    for node in program.graph.node:
        if node.op_type not in WEIGHTED:
            continue
        for name in node.input[:2] if node.op_type in PRODUCTS else node.input[1:2]:
            while name in producers and producers[name].op_type in TRANSPARENT:
                name = producers[name].input[0]
            if name in initializers and not name.startswith(FIXED):
                found[name] = numpy_helper.to_array(initializers[name])
    return found


def count_nonzeros(program: Any) -> Sparsity:
    """Count the non-zeros of the initializers that are weights of convolutions or matrix products."""
    layers = tuple(LayerCount(k, int(w.size), int(np.count_nonzero(w))) for k, w in weights_of(program).items())
    return Sparsity.of_layers(layers)
