"""An ONNX graph as a torch module, node by node.

Rounding (QuantizeLinear, casts to fp16, Round, Sign) is computed as a runtime does; its gradient is the
straight-through estimate, and zero where the value was clipped to its range.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from robust_edge.onnx_graph.file import read_program
from robust_edge.onnx_graph.folding import Folded, computed, folded, takes_sizes
from robust_edge.onnx_graph.operators.node import Node
from robust_edge.onnx_graph.operators.table import ESTIMATED
from robust_edge.onnx_graph.stripped import stripped
from robust_edge.onnx_graph.weights import batch_norm, batch_norm_name, is_batch_norm, place_for, trained_names


def read_network(path: Path) -> OnnxNetwork:
    """Build the module of one file.

    Raises:
        GraphError: an operator, or a use of one, that is not covered; names the node.
    """
    return OnnxNetwork(read_program(path))


class OnnxNetwork(nn.Module):
    """A graph in torch: weights are parameters and batch-norms modules, under the names of the graph where possible.

    Nodes that depend on constants only are computed once. Other constants are buffers that no state dict holds, since
    they stay in the graph.

    Attributes:
        architecture: the graph without its weights, from which the same module can be built.
        estimated: the operators in it whose gradient is an estimate, since their own is zero.
    """

    def __init__(self, program: Any) -> None:
        super().__init__()
        found = folded(program)
        self.architecture: bytes = stripped(program, found).SerializeToString()
        self._input, self._output = found.input, found.output
        self._nodes: list[Node] = [step.node for step in found.steps]
        self.estimated = tuple(sorted({node.operator for node in self._nodes} & ESTIMATED))
        self._modules_of: dict[str, str] = {}
        self._tensors_of: dict[str, str] = {}
        self._sizes: dict[str, np.ndarray] = {}
        for node in self._nodes:
            if is_batch_norm(node, found):
                path = place_for(self, batch_norm_name(node))
                self._owner(path).add_module(path.rpartition(".")[2], batch_norm(node, found))
                self._modules_of[node.outputs[0]] = path
        self._hold_constants(found)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) raw pixels to (N, K) logits."""
        values = {self._input: images}
        for node in self._nodes:
            if node.outputs[0] in self._modules_of:
                layer = self.get_submodule(self._modules_of[node.outputs[0]])
                values[node.outputs[0]] = layer(values[node.inputs[0]])
            else:
                values |= computed(node, [self._value(name, values, node, i) for i, name in enumerate(node.inputs)])
        logits: Tensor = self._value(self._output, values)
        return logits

    def place_of(self, name: str) -> str:
        """The name in the state dict of a weight of the graph."""
        return self._tensors_of[name]

    def _hold_constants(self, found: Folded) -> None:
        trained = trained_names(found)
        read = {name for node in self._nodes if node.outputs[0] not in self._modules_of for name in node.inputs}
        for name in (*trained, *(name for name in found.constants if name not in trained)):
            if name not in read and name != self._output:
                continue
            value = found.constants[name]
            path = place_for(self, name if name in trained else f"constant_{len(self._tensors_of)}")
            owner, own = self._owner(path), path.rpartition(".")[2]
            if name in trained:
                owner.register_parameter(own, nn.Parameter(value.clone()))  # exporters store equal tensors once
            else:
                owner.register_buffer(own, value, persistent=False)
                self._sizes[name] = value.numpy()
            self._tensors_of[name] = path

    def _owner(self, path: str) -> nn.Module:
        return self.get_submodule(path.rpartition(".")[0])

    def _value(self, name: str, values: dict[str, Tensor], node: Node | None = None, position: int = 0) -> Any:
        if not name:
            return None
        if name in values:
            return values[name]
        if node is not None and name in self._sizes and takes_sizes(node, position):
            return self._sizes[name]
        path = self._tensors_of[name]
        return getattr(self._owner(path), path.rpartition(".")[2])
