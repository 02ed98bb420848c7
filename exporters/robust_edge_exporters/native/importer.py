"""Import an ONNX file as a graph; each node is handled by the operator in the table for its type."""

from __future__ import annotations

from pathlib import Path

import onnx

from robust_edge_exporters.native import ir
from robust_edge_exporters.native.builder import GraphBuilder, unsupported
from robust_edge_exporters.native.geometry import Shape
from robust_edge_exporters.native.operators.table import HANDLERS
from robust_edge_runtimes.core.errors import ExportError


def import_onnx(path: Path) -> ir.Graph:
    """Import an ONNX file with one image input (N, C, H, W) and one output (N, K).

    Raises:
        ExportError: the engine does not support an operator, an attribute or a shape; the message names the node.
    """
    model = onnx.load(path)
    builder = GraphBuilder(model)
    inputs = [item for item in model.graph.input if item.name not in builder.constants]
    if len(inputs) != 1 or len(model.graph.output) != 1:
        raise ExportError(
            f"{path}: {len(inputs)} inputs, {len(model.graph.output)} outputs; the engine takes one of each"
        )
    dims = [int(d.dim_value) for d in inputs[0].type.tensor_type.shape.dim]
    if len(dims) != 4 or min(dims[1:]) < 1:
        raise ExportError(f"{path}: input is {dims}; the engine needs (N, C, H, W) with fixed C, H, W")
    builder.shapes[inputs[0].name] = Shape(dims[1], dims[2], dims[3])
    for node in model.graph.node:
        if node.op_type not in HANDLERS or node.domain not in ("", "ai.onnx"):
            raise unsupported(node, f"the sparse engine supports only {', '.join(sorted(HANDLERS))}")
        HANDLERS[node.op_type](builder, node)
    output = model.graph.output[0].name
    return ir.Graph(inputs[0].name, builder.aliases.get(output, output), tuple(builder.ops), builder.shapes)
