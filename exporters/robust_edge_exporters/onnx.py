"""ONNX: one file, true opset, batch-norm folded, any batch size."""

from __future__ import annotations

import contextlib
import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn

from robust_edge_exporters.artifact import ExportedArtifact
from robust_edge_exporters.target import Target
from robust_edge_runtimes.errors import ExportError
from robust_edge_runtimes.manifest import LayerCount, Sparsity, TensorSpec

INPUT, OUTPUT = "images", "logits"
FILE = "model.onnx"
WEIGHTED = {"Conv", "ConvTranspose", "Gemm", "MatMul"}


def export_onnx(model: nn.Module, shape: tuple[int, ...], target: Target, folder: str) -> ExportedArtifact:
    """Write `model.onnx`.

    Args:
        model: in evaluation mode; (N, C, H, W) raw pixels to (N, K) logits.
        shape: (C, H, W).
        target: its opset and IR version are written, and asserted on the written file.
        folder: where to write.

    Raises:
        ExportError: the network cannot be expressed, or the file is not what was asked for.
    """
    path = Path(folder) / FILE
    program = _converted(model, shape, target)
    program.ir_version = target.ir_version
    _check_program(program, target)
    onnx.save(program, str(path))
    written = onnx.load(str(path))
    _check_written(written, target)
    classes = written.graph.output[0].type.tensor_type.shape.dim[1].dim_value
    return ExportedArtifact(
        file=FILE,
        format="onnx",
        precision="fp32",
        input=TensorSpec(INPUT, (None, *shape)),
        output=TensorSpec(OUTPUT, (None, classes)),
        sparsity=count_nonzeros(written),
        opset=target.opset,
        ir_version=written.ir_version,
    )


def count_nonzeros(program: Any) -> Sparsity:
    """Non-zeros of every initializer that is the weight of a convolution or a matrix product."""
    initializers = {item.name: item for item in program.graph.initializer}
    layers = []
    for node in program.graph.node:
        if node.op_type in WEIGHTED and node.input[1] in initializers:
            weight = numpy_helper.to_array(initializers[node.input[1]])
            layers.append(LayerCount(node.input[1], int(weight.size), int(np.count_nonzero(weight))))
    return Sparsity(sum(layer.weights for layer in layers), sum(layer.nonzero for layer in layers), tuple(layers))


def _converted(model: nn.Module, shape: tuple[int, ...], target: Target) -> Any:
    example = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")  # torch.onnx warns of its own internals
            converted = torch.onnx.export(
                model,
                (example,),
                dynamo=True,
                opset_version=target.opset,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
                verbose=False,
            )
    except Exception as cause:  # torch.onnx raises a different class for every stage
        reason = " ".join(str(cause).split())[:300]
        raise ExportError(f"the network cannot be written as ONNX for {target.name}: {reason}") from cause
    if converted is None:
        raise ExportError(f"the network cannot be written as ONNX for {target.name}: the exporter returned nothing")
    return converted.model_proto


def _check_program(program: Any, target: Target) -> None:
    try:
        onnx.checker.check_model(program, full_check=True)
    except Exception as cause:  # the checker and shape inference raise classes of their own
        reason = " ".join(str(cause).split())[:300]
        raise ExportError(f"what was converted for {target.name} is not valid ONNX: {reason}") from cause
    shapes = [[size.dim_value for size in port.type.tensor_type.shape.dim] for port in program.graph.output]
    if len(shapes) != 1 or len(shapes[0]) != 2 or shapes[0][1] < 1:
        raise ExportError(f"the network must give logits of shape (N, K), its outputs are {shapes} (0 for any size)")


def _check_written(program: Any, target: Target) -> None:
    opsets = {item.domain: item.version for item in program.opset_import}
    if opsets.get("", opsets.get("ai.onnx")) != target.opset or set(opsets) - {"", "ai.onnx"}:
        raise ExportError(f"asked for opset {target.opset}, the written file says {opsets}")
    names = [port.name for port in (*program.graph.input, *program.graph.output)]
    if names != [INPUT, OUTPUT]:
        raise ExportError(f"the written file has the ports {names}, expected {[INPUT, OUTPUT]}")
