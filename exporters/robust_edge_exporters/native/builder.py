"""GraphBuilder: the state of the ONNX import, to which operators are added node by node, with their shapes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from robust_edge_exporters.native import ir
from robust_edge_exporters.native.geometry import Shape
from robust_edge_runtimes.core.errors import ExportError


class GraphBuilder:
    """Constants, shapes and operators of the nodes imported so far; `aliases` maps tensors to equal earlier tensors."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.constants: dict[str, np.ndarray[Any, Any]] = {
            tensor.name: _values(tensor) for tensor in model.graph.initializer
        }
        self.shapes: dict[str, Shape] = {}
        self.ops: list[ir.Op] = []
        self.aliases: dict[str, str] = {}

    def constant(self, node: Any, index: int) -> np.ndarray[Any, Any] | None:
        """Value of the constant input `index`, None if it is absent; a non-constant input is an error."""
        if index >= len(node.input) or not node.input[index]:
            return None
        name = node.input[index]
        if name not in self.constants:
            raise unsupported(node, f"input {index} ({name}) must be a constant")
        return self.constants[name]

    def required(self, node: Any, index: int) -> np.ndarray[Any, Any]:
        """Value of the constant input `index`; an absent or non-constant input is an error."""
        value = self.constant(node, index)
        assert value is not None
        return value

    def tensor(self, node: Any, index: int) -> str:
        """Name of the tensor of input `index`; a constant input is an error."""
        name = str(self.aliases.get(node.input[index], node.input[index]))
        if name not in self.shapes:
            raise unsupported(node, f"input {index} ({node.input[index]}) must not be a constant")
        return name

    def append(self, op: ir.Op, shape: Shape) -> None:
        """Append `op`, whose output has `shape`."""
        self.ops.append(op)
        self.shapes[op.output] = shape


Handler = Callable[[GraphBuilder, Any], None]


def _values(tensor: onnx.TensorProto) -> np.ndarray[Any, Any]:
    try:
        values: np.ndarray[Any, Any] = numpy_helper.to_array(tensor)
    except ValueError as cause:
        raise ExportError(
            f"the ONNX file does not hold the values of '{tensor.name}' ({cause}), as a bundle's graph.onnx does not; "
            "export the network itself"
        ) from cause
    return values


def float32(values: np.ndarray[Any, Any]) -> ir.Array:
    """The values as a contiguous float32 array."""
    return np.ascontiguousarray(values, dtype=np.float32)


def unsupported(node: Any, why: str) -> ExportError:
    """The ExportError for a node that the engine does not support."""
    return ExportError(f"{node.op_type} at node '{node.name or node.output[0]}': {why}")


def attributes(node: Any) -> dict[str, Any]:
    """Attribute values by name, with strings decoded."""
    values = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in values.items()}


def names(node: Any, *inputs: str) -> tuple[str, tuple[str, ...], str]:
    """Name, inputs and output of a node, as arguments of an operator."""
    return node.name or node.output[0], inputs, node.output[0]
