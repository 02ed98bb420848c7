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
    They are named after the operator, since torch numbers such tensors, and not always alike.
    """
    named = _recurrent_names(program)
    layers = []
    for stored, weight in weights_of(program).items():
        parts = {stored: weight}
        if stored in named:
            parts = {f"{named[stored]}[{direction}]": part for direction, part in enumerate(weight)}
        layers += [LayerCount(name, part.size, int(np.count_nonzero(part))) for name, part in parts.items()]
    return Sparsity.of_layers(tuple(layers))


def _recurrent_names(program: Any) -> dict[str, str]:
    """Names for the stored weights of recurrent layers."""
    producers = {name: node for node in program.graph.node for name in node.output}
    nodes = [node for node in program.graph.node if node.op_type in RECURRENT]
    return {
        _origin(name, producers): f"{node.op_type}_{number}.{kind}"
        for number, node in enumerate(nodes)
        for name, kind in zip(node.input[1:3], ("weight_ih", "weight_hh"), strict=True)
    }
