"""The nodes of a graph that depend on the image, and the constants that they read."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robust_edge.onnx_graph.error import GraphError
from robust_edge.onnx_graph.operators.node import Inputs, Node
from robust_edge.onnx_graph.operators.table import OPERATORS

WEIGHTS_AS_INPUTS = "weights_as_inputs"
"""The property of a graph whose inputs after the first are weights, given by their shapes only."""
SIZES = frozenset(
    (
        "ConstantOfShape", "CumSum", "DFT", "Expand", "Pad", "Reshape", "Resize", "Slice", "Split", "Squeeze", "Tile",
        "TopK", "Trilu", "Unsqueeze", "Upsample",
    )
)  # fmt: skip
"""Operators whose constants are sizes, axes or positions: they are given as arrays, since torch.export cannot know
the values of tensors. So are those of reductions."""


@dataclasses.dataclass(frozen=True)
class Step:
    """A node that depends on the image.

    Attributes:
        proto: as in the file.
    """

    node: Node
    proto: Any


@dataclasses.dataclass(frozen=True)
class Folded:
    """A graph without the nodes that depend on constants only.

    Attributes:
        input: name of the images.
        output: name of the logits.
        steps: in the order of the file; those that do not reach the output are left out.
        constants: by name, those that the steps read.
    """

    input: str
    output: str
    steps: tuple[Step, ...]
    constants: dict[str, Tensor]


def folded(program: Any) -> Folded:
    """Compute every node that depends on constants only.

    Raises:
        GraphError: an operator, or a use of one, that is not covered, names the node; or the graph has not one input
            and one output.
    """
    graph = program.graph
    constants = {item.name: tensor_of(item) for item in graph.initializer}
    ports = [port for port in graph.input if port.name not in constants]
    if any(item.key == WEIGHTS_AS_INPUTS for item in program.metadata_props):
        constants |= {port.name: _empty(port) for port in ports[1:]}
        del ports[1:]
    if len(ports) != 1 or len(graph.output) != 1:
        raise GraphError(f"the graph has {len(ports)} inputs and {len(graph.output)} outputs; one of each is needed")
    opset = max(item.version for item in program.opset_import if item.domain in ("", "ai.onnx"))
    steps = []
    with torch.no_grad():
        for proto in graph.node:
            node = _node(proto, opset)
            if all(name in constants for name in node.inputs if name):
                constants |= computed(node, [constants[name] if name else None for name in node.inputs])
            else:
                steps.append(Step(node, proto))
    output = graph.output[0].name
    needed = _needed(steps, output)
    used = {name for step in needed for name in step.node.inputs} | {output}
    return Folded(ports[0].name, output, needed, {name: constants[name] for name in constants if name in used})


def computed(node: Node, inputs: Inputs) -> dict[str, Tensor]:
    """The outputs of one node by name.

    Raises:
        GraphError: a use of the operator that is not covered, or an output that is not computed.
    """
    _refuse_unknown(node)
    try:
        result = OPERATORS[node.operator](node, inputs)
    except (RuntimeError, IndexError, TypeError, ValueError, KeyError) as cause:
        raise GraphError(f"operator {node.operator} of node {node.name!r}: {cause}") from cause
    results = result if isinstance(result, tuple) else (result,)
    if any(node.outputs[len(results) :]):
        raise GraphError(f"operator {node.operator} of node {node.name!r}: output {len(results) + 1} is not covered")
    return {name: value for name, value in zip(node.outputs, results, strict=False) if name}


def tensor_of(item: Any) -> Tensor:
    """Floats of any width as float32, so that a CPU can run them; whole numbers as they are."""
    from onnx import numpy_helper

    array = np.array(numpy_helper.to_array(item))
    return torch.from_numpy(array.astype(np.float32) if array.dtype.kind == "f" else array)


def takes_sizes(node: Node, position: int) -> bool:
    """Whether a constant at this position of a node's inputs is sizes, axes or indices; the first input is data."""
    sized = node.operator in SIZES or node.operator.startswith("Reduce")
    return sized and (position > 0 or node.operator == "ConstantOfShape")


def _needed(steps: list[Step], output: str) -> tuple[Step, ...]:
    wanted, needed = {output}, []
    for step in reversed(steps):
        if wanted & set(step.node.outputs):
            wanted |= set(step.node.inputs)
            needed.append(step)
    for step in reversed(needed):
        _refuse_unknown(step.node)
    return tuple(reversed(needed))


def _refuse_unknown(node: Node) -> None:
    if node.operator not in OPERATORS:
        raise GraphError(f"operator {node.operator} of node {node.name!r} (giving {node.outputs[0]!r}) is not covered")


def _empty(port: Any) -> Tensor:
    return torch.zeros([size.dim_value for size in port.type.tensor_type.shape.dim])


def _node(proto: Any, opset: int) -> Node:
    from onnx import helper

    if proto.domain not in ("", "ai.onnx"):
        raise GraphError(f"operator {proto.domain}.{proto.op_type} of node {proto.name!r} is not one of ONNX")
    attributes = {item.name: helper.get_attribute_value(item) for item in proto.attribute}
    values = {name: tensor_of(value) if hasattr(value, "raw_data") else value for name, value in attributes.items()}
    outputs = tuple(proto.output)
    return Node(proto.op_type, proto.name or outputs[0], tuple(proto.input), outputs, values, opset)
