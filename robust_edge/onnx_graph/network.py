"""An ONNX graph as a torch module, node by node.

Rounding (QuantizeLinear, casts to fp16) is computed as a runtime does; its gradient is the straight-through estimate,
and zero where the value was clipped to its range.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robust_edge.onnx_graph.error import GraphError
from robust_edge.onnx_graph.operators.node import Inputs, Node
from robust_edge.onnx_graph.operators.table import OPERATORS


def read_network(path: Path) -> OnnxNetwork:
    """Build the module of one file.

    Raises:
        GraphError: an operator, or a use of one, that is not covered; names the node.
    """
    import onnx

    try:
        program = onnx.load(str(path))
    except Exception as cause:  # protobuf raises classes of its own
        raise GraphError(f"{path} cannot be read as ONNX: {cause}") from cause
    return OnnxNetwork(program)


class OnnxNetwork(nn.Module):
    """A graph in torch; nodes that depend on constants only are computed once."""

    def __init__(self, program: Any) -> None:
        super().__init__()
        graph = program.graph
        self._opset = max(item.version for item in program.opset_import if item.domain in ("", "ai.onnx"))
        self._buffers_of: dict[str, str] = {}
        for item in graph.initializer:
            self._add_constant(item.name, _constant(item))
        known = {item.name for item in graph.initializer}
        ports = [port.name for port in graph.input if port.name not in known]
        if len(ports) != 1 or len(graph.output) != 1:
            raise GraphError(
                f"the graph has {len(ports)} inputs and {len(graph.output)} outputs; one of each is needed"
            )
        self._input, self._output = ports[0], graph.output[0].name
        self._nodes: list[Node] = []
        for proto in graph.node:
            self._add(_node(proto, self._opset))
        self._drop_unused_constants()
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) raw pixels to (N, K) logits."""
        values = {self._input: images}
        for node in self._nodes:
            values |= _computed(node, [self._value(name, values) for name in node.inputs])
        return values[self._output]

    def _add(self, node: Node) -> None:
        """Compute a node now if all its inputs are constants, otherwise in every call."""
        if node.operator not in OPERATORS:
            raise GraphError(
                f"operator {node.operator} of node {node.name!r} (giving {node.outputs[0]!r}) is not covered"
            )
        if all(name in self._buffers_of for name in node.inputs if name):
            with torch.no_grad():
                found = _computed(node, [self._value(name, {}) for name in node.inputs])
            for name, value in found.items():
                self._add_constant(name, value)
        else:
            self._nodes.append(node)

    def _add_constant(self, name: str, value: Tensor) -> None:
        slot = f"constant_{len(self._buffers_of)}"
        self._buffers_of[name] = slot
        self.register_buffer(slot, value)

    def _value(self, name: str, values: dict[str, Tensor]) -> Tensor | None:
        if not name:
            return None
        return values[name] if name in values else self.get_buffer(self._buffers_of[name])

    def _drop_unused_constants(self) -> None:
        used = {name for node in self._nodes for name in node.inputs} | {self._output}
        for name in [name for name in self._buffers_of if name not in used]:
            delattr(self, self._buffers_of.pop(name))


def _computed(node: Node, inputs: Inputs) -> dict[str, Tensor]:
    """The outputs of one node by name.

    Raises:
        GraphError: a use of the operator that is not covered, or an output that is not computed.
    """
    try:
        result = OPERATORS[node.operator](node, inputs)
    except (RuntimeError, IndexError, TypeError, ValueError, KeyError) as cause:
        raise GraphError(f"operator {node.operator} of node {node.name!r}: {cause}") from cause
    results = result if isinstance(result, tuple) else (result,)
    if any(node.outputs[len(results) :]):
        raise GraphError(f"operator {node.operator} of node {node.name!r}: output {len(results) + 1} is not covered")
    return {name: value for name, value in zip(node.outputs, results, strict=False) if name}


def _constant(item: Any) -> Tensor:
    """Floats of any width as float32, so that a CPU can run them; whole numbers as they are."""
    from onnx import numpy_helper

    array = np.array(numpy_helper.to_array(item))
    return torch.from_numpy(array.astype(np.float32) if array.dtype.kind == "f" else array)


def _node(proto: Any, opset: int) -> Node:
    from onnx import helper

    if proto.domain not in ("", "ai.onnx"):
        raise GraphError(f"operator {proto.domain}.{proto.op_type} of node {proto.name!r} is not one of ONNX")
    attributes = {item.name: helper.get_attribute_value(item) for item in proto.attribute}
    values = {name: _constant(value) if hasattr(value, "raw_data") else value for name, value in attributes.items()}
    outputs = tuple(proto.output)
    return Node(proto.op_type, proto.name or outputs[0], tuple(proto.input), outputs, values, opset)
