"""The classifier of a graph for another number of classes."""

from __future__ import annotations

from typing import Any

import numpy as np

from robust_edge.onnx_graph.error import GraphError
from robust_edge.onnx_graph.folding import folded
from robust_edge.onnx_graph.operators.node import Node

KEEPS_CHANNELS = frozenset(
    ("Add", "AveragePool", "Flatten", "GlobalAveragePool", "GlobalMaxPool", "Identity", "MaxPool", "ReduceMax",
     "ReduceMean", "Relu", "Reshape", "Squeeze")
)  # fmt: skip
"""What may stand between the classifier and the logits: as in SqueezeNet, whose last layer is a convolution."""


def with_classes(program: Any, old: int, new: int) -> tuple[Any, tuple[str, ...]]:
    """A graph without weights, as `stripped` gives it, with a classifier of other classes.

    Args:
        program: its weights are inputs, of which only the shapes are known; not changed.
        old, new: numbers of classes.

    Returns:
        The new graph, and the names of the weights and biases whose values the old ones do not give.

    Raises:
        GraphError: the last layer cannot be found; names the node that stands in the way.
    """
    from onnx import ModelProto

    changed = ModelProto()
    changed.CopyFrom(program)
    ports = {port.name: port for port in changed.graph.input}
    sizes = {item.name: item for item in changed.graph.initializer}
    nodes = {name: step.node for step in folded(program).steps for name in step.node.outputs}
    found: list[str] = []
    name = program.graph.output[0].name
    while True:
        node = nodes.pop(name, None)  # so that a circle ends, too
        if node is None:
            raise GraphError("the last layer cannot be found: there is none between the images and the logits")
        place = _class_axis(node)
        if place is not None:
            weight, axis = place
            found += [_resized(ports, node, weight, axis, old, new)]
            found += [_resized(ports, node, bias, None, old, new) for bias in node.inputs[2:] if bias]
            return changed, tuple(found)
        if node.operator not in KEEPS_CHANNELS or sum(item in nodes for item in node.inputs) > 1:
            raise GraphError(
                f"the last layer cannot be found: operator {node.operator} of node {node.name!r} stands between it and "
                "the logits"
            )
        constants = [item for item in node.inputs if item in ports and item != program.graph.input[0].name]
        found += [_resized(ports, node, item, None, old, new) for item in constants]
        if node.operator == "Reshape":
            _reshape(changed, sizes, node, old, new)
        name = next((item for item in node.inputs if item in nodes), "")


def _class_axis(node: Node) -> tuple[str, int] | None:
    """The weight of a layer, and its axis along the outputs; None for a node that is no layer."""
    if node.operator == "Gemm":
        return node.inputs[1], 0 if node.get("transB", 0) else 1
    if node.operator == "MatMul":
        return node.inputs[1], -1
    if node.operator == "Conv" and node.get("group", 1) == 1:
        return node.inputs[1], 0
    return None


def _resized(ports: dict[str, Any], node: Node, name: str, axis: int | None, old: int, new: int) -> str:
    """Change the size of a weight or bias along its axis of classes; None stands for the only axis of that size."""
    shape = [size.dim_value for size in ports[name].type.tensor_type.shape.dim] if name in ports else []
    axes = [place for place, size in enumerate(shape) if size == old] if axis is None else [axis % max(len(shape), 1)]
    if len(axes) != 1 or not shape or shape[axes[0]] != old:
        raise GraphError(
            f"the last layer cannot be found: {name!r} of node {node.name!r} is of shape {tuple(shape)}, no weight or "
            f"bias of {old} classes"
        )
    ports[name].type.tensor_type.shape.dim[axes[0]].dim_value = new
    return name


def _reshape(program: Any, sizes: dict[str, Any], node: Node, old: int, new: int) -> None:
    """Give a Reshape a constant of its own, with the new number of classes in place of the old one."""
    from onnx import numpy_helper

    if node.inputs[1] not in sizes:
        raise GraphError(f"the last layer cannot be found: the shape in node {node.name!r} is no constant")
    value = np.array(numpy_helper.to_array(sizes[node.inputs[1]]))
    value[value == old] = new
    name = f"{node.outputs[0]}_shape"
    program.graph.initializer.append(numpy_helper.from_array(value, name))
    next(item for item in program.graph.node if node.outputs[0] in item.output).input[1] = name
