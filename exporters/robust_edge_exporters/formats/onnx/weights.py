"""The prunable weights that an ONNX program holds, and their number."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import numpy_helper

from robust_edge_exporters.weight_uses import FIXED
from robust_edge_runtimes.core.manifest import LayerCount, Sparsity

PRODUCTS = {"Einsum", "Gemm", "MatMul"}
RECURRENT = {"GRU", "LSTM", "RNN"}
WEIGHTED = {"Conv", "ConvTranspose", *PRODUCTS, *RECURRENT}
TRANSPARENT = {"DequantizeLinear", "QuantizeLinear", "Cast", "Identity", "Transpose"}


def weights_of(program: Any) -> dict[str, np.ndarray]:
    """Prunable weights of convolutions, matrix products and recurrent layers, as stored, in the order of the nodes."""
    initializers = {item.name: item for item in program.graph.initializer}
    producers = {name: node for node in program.graph.node for name in node.output}
    found = {}
    for node in program.graph.node:
        if node.op_type not in WEIGHTED:
            continue
        last = 3 if node.op_type in RECURRENT else 2
        for name in node.input[node.op_type not in PRODUCTS : last]:
            name = _origin(name, producers)
            if name in initializers and not name.startswith(FIXED):
                found[name] = numpy_helper.to_array(initializers[name])
    return found


def _origin(name: str, producers: dict[str, Any]) -> str:
    """The value that operators without arithmetic of their own only pass on; empty if they pass it on in a circle."""
    seen = set()
    while name in producers and producers[name].op_type in TRANSPARENT:
        if name in seen or not producers[name].input:
            return ""
        seen.add(name)
        name = producers[name].input[0]
    return name


def count_nonzeros(program: Any) -> Sparsity:
    """Count the non-zeros of the initializers that are weights of convolutions or matrix products.

    A recurrent layer stores the weights of both directions in one tensor, the network in two; they are counted as two.
    """
    producers = {name: node for node in program.graph.node for name in node.output}
    recurrent = (node for node in program.graph.node if node.op_type in RECURRENT)
    stacked = {_origin(name, producers) for node in recurrent for name in node.input[1:3]}
    layers = []
    for name, weight in weights_of(program).items():
        parts = [*weight] if name in stacked and weight.shape[0] > 1 else [weight]
        names = [name] if len(parts) == 1 else [f"{name}[{direction}]" for direction in range(len(parts))]
        layers += [
            LayerCount(own, part.size, int(np.count_nonzero(part))) for own, part in zip(names, parts, strict=True)
        ]
    return Sparsity.of_layers(tuple(layers))
