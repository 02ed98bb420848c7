"""Import an ONNX file as a graph; each node is handled by the operator in the table for its type."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from robust_edge_exporters.native import ir
from robust_edge_exporters.native.builder import ANY_BATCH, GraphBuilder, UnsupportedNode, attributes, unsupported
from robust_edge_exporters.native.geometry import Shape
from robust_edge_exporters.native.operators.table import HANDLERS
from robust_edge_exporters.native.views import shape_of
from robust_edge_runtimes.core.errors import ExportError


def import_onnx(path: Path) -> ir.Graph:
    """Import an ONNX file with one image input (N, C, H, W) and one output (N, K).

    Raises:
        ExportError: the engine does not support an operator, an attribute or a shape; the message names the node.
    """
    return import_model(onnx.load(path), str(path))


def import_model(model: onnx.ModelProto, name: str) -> ir.Graph:
    """Import a loaded ONNX file, which errors call `name`; see `import_onnx`."""
    builder = started(model, name)
    for node in model.graph.node:
        import_node(builder, node)
    return finished(builder, model)


def unsupported_nodes(model: onnx.ModelProto, name: str = "the network") -> list[ExportError]:
    """Everything that keeps the engine from running a network, in the order of its nodes; empty if nothing does.

    A node that reads the output of an unsupported node is checked where its shape is known without that node.

    Args:
        model: the network with its weights.
        name: what errors call it.
    """
    try:
        builder = started(model, name)
    except ExportError as error:
        return [error]
    inferred = onnx.shape_inference.infer_shapes(model).graph
    known = {item.name: item for item in (*inferred.value_info, *inferred.output)}
    found: list[ExportError] = []
    unknown: set[str] = set()
    for node in model.graph.node:
        if unknown.intersection(node.input):
            unknown.update(node.output)
            continue
        try:
            import_node(builder, node)
        except UnsupportedNode as error:
            found.append(error)
            unknown.update(output for output in node.output if not assume(builder, known.get(output)))
    if not found:
        try:
            finished(builder, model)
        except ExportError as error:
            found.append(error)
    return found


def assume(builder: GraphBuilder, value: onnx.ValueInfoProto | None) -> bool:
    """Take a tensor for an input of the network, if its shape is known; return whether it is."""
    dims = [int(d.dim_value) for d in value.type.tensor_type.shape.dim] if value is not None else []
    if len(dims) not in (2, 4) or min(dims[1:]) < 1:
        return False
    assert value is not None
    builder.shapes[value.name] = shape_of(tuple(dims))
    return True


def started(model: onnx.ModelProto, name: str) -> GraphBuilder:
    """A builder that knows the constants and the input of a network.

    Raises:
        ExportError: it has other inputs than one image, or several outputs.
    """
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [item for item in model.graph.input if item.name not in constants]
    if len(inputs) != 1 or len(model.graph.output) != 1:
        raise ExportError(
            f"{name}: {len(inputs)} inputs, {len(model.graph.output)} outputs; the engine takes one of each"
        )
    dims = [int(d.dim_value) for d in inputs[0].type.tensor_type.shape.dim]
    if len(dims) != 4 or min(dims[1:]) < 1:
        raise ExportError(f"{name}: input is {dims}; the engine needs (N, C, H, W) with fixed C, H, W")
    builder = GraphBuilder(model, dims[0] or ANY_BATCH)
    builder.shapes[inputs[0].name] = Shape(dims[1], dims[2], dims[3])
    return builder


def import_node(builder: GraphBuilder, node: Any) -> None:
    """Append what a node computes; a node of constants is computed now.

    Raises:
        UnsupportedNode: the engine does not run the node.
    """
    own = node.domain in ("", "ai.onnx")
    if own and node.op_type == "Shape" and node.input[0] not in builder.constants:
        import_shape(builder, node)
    elif own and node.op_type != "Constant" and all(not name or name in builder.constants for name in node.input):
        fold(builder, node)
    elif own and node.op_type in HANDLERS:
        HANDLERS[node.op_type](builder, node)
    else:
        raise unsupported(node, "the sparse engine does not have this operator")


def import_shape(builder: GraphBuilder, node: Any) -> None:
    """The dimensions of a tensor are a constant, which may depend on the number of images."""
    dims, values = builder.dims(node, 0), attributes(node)
    chosen = range(len(dims))[slice(values.get("start"), values.get("end"))]
    builder.constants[node.output[0]] = np.array([dims[axis] for axis in chosen], np.int64)
    if 0 in chosen:
        builder.of_batch.add(node.output[0])


def fold(builder: GraphBuilder, node: Any) -> None:
    """Compute a node whose inputs are all constants."""
    inputs = {name: builder.constants[name] for name in node.input if name}
    try:
        values = ReferenceEvaluator(node).run(None, inputs)
    except Exception as cause:  # the reference raises a different class for every operator
        raise unsupported(node, f"cannot be computed from its constants ({cause})") from cause
    builder.constants.update(zip(node.output, values, strict=True))
    if builder.of_batch.intersection(node.input):
        builder.of_batch.update(node.output)


def finished(builder: GraphBuilder, model: onnx.ModelProto) -> ir.Graph:
    """The graph of all nodes.

    Raises:
        ExportError: the output is a constant, or its shape is not (N, K).
    """
    (output,) = (item.name for item in model.graph.output)
    last = onnx.helper.make_node("Output", [output], [output], name=output)
    return ir.Graph(next(iter(builder.shapes)), builder.tensor(last, 0), tuple(builder.ops), builder.shapes)
