"""ONNX: one file, true opset, batch-norm folded, any batch size or one, in fp32, fp16 or 8 bits."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
import torch
from onnx import numpy_helper
from onnx_ir.passes import common as passes
from torch import nn

from robust_edge_exporters.artifact import ExportedArtifact, ExportSettings
from robust_edge_exporters.target import Target
from robust_edge_runtimes.core.errors import ExportError, InputError
from robust_edge_runtimes.core.manifest import LayerCount, Sparsity, TensorSpec

INPUT, OUTPUT = "images", "logits"
FILE = "model.onnx"
WEIGHTED = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
# What may stand between an initializer and the layer whose weight it is.
TRANSPARENT = {"DequantizeLinear", "QuantizeLinear", "Cast", "Identity", "Transpose"}
DEFAULTS = ExportSettings()
# PyTorch's own operators wherever they stand, and anybody's where the exporters speak of one.
_OPERATOR = re.compile(
    r"\b(?:aten|prims|torchvision)(?:\.|::)\w+|(?<=OpOverload\(op=')\w+\.\w+|(?<=unrecognized namespace )\w+::\w+"
)
# Where PyTorch says which line of the network it could not follow.
_LINE = re.compile(r'The following call raised this error:\s+File "([^"]+)", line (\d+)')
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def export_onnx(
    model: nn.Module, shape: tuple[int, ...], target: Target, folder: str, settings: ExportSettings = DEFAULTS
) -> ExportedArtifact:
    """Write `model.onnx`.

    Args:
        model: in evaluation mode; (N, C, H, W) raw pixels to (N, K) logits.
        shape: (C, H, W).
        target: its opset and IR version are written, and asserted on the written file.
        folder: where to write.
        settings: precision, batch size, calibration images, metadata.

    Raises:
        ExportError: the network cannot be expressed, or the file is not what was asked for.
    """
    program = in_precision(converted(model, shape, target, settings.batch), target, settings)
    return write_program(program, shape, target, folder, settings)


def converted(model: nn.Module, shape: tuple[int, ...], target: Target, batch: int | None = None) -> Any:
    """The network as an fp32 program of the target's opset, every constant an initializer.

    Raises:
        ExportError: the network cannot be expressed.
    """
    if target.opset is None:
        raise InputError(f"target {target.name} has no opset; it does not run ONNX")
    convert = _by_dynamo if target.exporter == "dynamo" else _by_torchscript
    example = torch.rand(batch or 2, *shape, generator=torch.Generator().manual_seed(0))
    try:
        with _unheard():
            program = convert(model, example, target.opset, batch is None)
    except Exception as cause:  # torch.onnx raises a different class for every stage
        raise ExportError(
            f"the network cannot be written as ONNX for {target.name} (opset {target.opset}): "
            f"{_reason(cause, model, example)}"
        ) from cause
    _forget_sources(program)
    program.ir_version = target.ir_version
    return program


def in_precision(program: Any, target: Target, settings: ExportSettings) -> Any:
    """The program with the numbers that the file is to hold."""
    stored = target.in_file(settings.precision)
    if stored == "fp16":
        from robust_edge_exporters.formats.onnx.fp16 import halved

        return halved(program)
    if stored == "int8":
        from robust_edge_exporters.formats.onnx.int8 import quantised

        assert target.int8 is not None
        return quantised(program, target.int8, settings.calibration)
    return program


def write_program(
    program: Any, shape: tuple[int, ...], target: Target, folder: str, settings: ExportSettings
) -> ExportedArtifact:
    """Save a program once its bytes, read again, are what the target asks for, and describe what they hold.

    Raises:
        ExportError: not valid ONNX, or not what the target asks for.
    """
    program.ir_version = target.ir_version
    onnx.helper.set_model_props(program, dict(settings.metadata))
    blob = program.SerializeToString()
    written = onnx.load_from_string(blob)
    _check_program(written, target)
    _check_written(written, target)
    (Path(folder) / FILE).write_bytes(blob)
    classes = written.graph.output[0].type.tensor_type.shape.dim[1].dim_value
    return ExportedArtifact(
        file=FILE,
        format=target.format,
        precision=settings.precision,
        input=TensorSpec(INPUT, (settings.batch, *shape)),
        output=TensorSpec(OUTPUT, (settings.batch, classes)),
        sparsity=count_nonzeros(written),
        opset=target.opset,
        ir_version=written.ir_version,
    )


def weights_of(program: Any) -> dict[str, np.ndarray]:
    """Every initializer that is the weight of a convolution or a matrix product, as stored, in order of depth."""
    initializers = {item.name: item for item in program.graph.initializer}
    producers = {name: node for node in program.graph.node for name in node.output}
    found = {}
    for node in program.graph.node:
        if node.op_type not in WEIGHTED:
            continue
        name = node.input[1]
        while name in producers and producers[name].op_type in TRANSPARENT:
            name = producers[name].input[0]
        if name in initializers:
            found[name] = numpy_helper.to_array(initializers[name])
    return found


def count_nonzeros(program: Any) -> Sparsity:
    """Non-zeros of every initializer that is the weight of a convolution or a matrix product."""
    layers = tuple(LayerCount(k, int(w.size), int(np.count_nonzero(w))) for k, w in weights_of(program).items())
    return Sparsity.of_layers(layers)


def _by_dynamo(model: nn.Module, example: torch.Tensor, opset: int, any_batch: bool) -> Any:
    written = torch.onnx.export(
        model,
        (example,),
        dynamo=True,
        opset_version=opset,
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamic_shapes=({0: torch.export.Dim.DYNAMIC},) if any_batch else None,
        verbose=False,
    )
    if written is None:
        raise ValueError("the exporter returned nothing")
    return written.model_proto


def _by_torchscript(model: nn.Module, example: torch.Tensor, opset: int, any_batch: bool) -> Any:
    buffer = io.BytesIO()
    torch.onnx.export(
        model,
        (example,),
        buffer,  # type: ignore[arg-type] # its signature forgets what its documentation allows
        dynamo=False,
        opset_version=opset,
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamic_axes={INPUT: {0: "N"}, OUTPUT: {0: "N"}} if any_batch else None,
    )
    program = onnx.load_from_string(buffer.getvalue())
    _lift_constants(program)
    return program


def _lift_constants(program: Any) -> None:
    """Constant nodes become initializers, and copies of initializers their originals.

    torch's older exporter writes both, and TensorRT 8.2 takes weights from initializers only.
    """
    model = onnx_ir.from_proto(program)
    passes.LiftConstantsToInitializersPass(size_limit=0)(model)
    passes.IdentityEliminationPass()(model)
    program.graph.CopyFrom(onnx_ir.to_proto(model.graph))
    del program.graph.value_info[:]  # onnx-ir repeats there the shapes of initializers


def _forget_sources(program: Any) -> None:
    """Remove what torch notes of the source of each node and value: paths of this machine, mostly.

    IR versions before 10 have no field for it. onnx-ir's `ClearMetadataAndDocStringPass` leaves the notes of values.
    """
    graph = program.graph
    for item in (program, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        item.ClearField("doc_string")
        item.ClearField("metadata_props")


def _reason(cause: Exception, model: nn.Module, example: torch.Tensor) -> str:
    """One line of the chain of causes.

    The last link that names an operator, that first; or one that names a line of the network; or else the outermost.
    """
    link: BaseException | None = cause
    found = _one_line(cause)
    while link is not None:
        if line := _LINE.search(str(link)):
            found = f"line {line.group(2)} of {line.group(1)}: {_one_line(link)}"
        if named := _OPERATOR.search(str(link)):
            found = f"operator {named.group()}{_place(model, example, named.group())}: {_one_line(link)}"
        link = link.__cause__ or link.__context__
    return found


def _place(model: nn.Module, example: torch.Tensor, operator: str) -> str:
    """The node and the module that an operator stands in, where torch can follow the network."""
    name = re.split(r"\W+", operator)[1]
    try:
        with _unheard():
            nodes = list(torch.export.export(model, (example,)).graph.nodes)
    except Exception:  # the operator is the reason; its place is a kindness
        return ""
    for node in nodes:
        if node.op == "call_function" and name in str(node.target):
            stack = list((node.meta.get("nn_module_stack") or {}).values())
            module, kind = stack[-1] if stack else ("", "")
            kind = getattr(kind, "__qualname__", str(kind)).rsplit(".", 1)[-1]
            return f" of node {node.name!r} in {f'module {module!r}' if module else 'the network itself'} ({kind})"
    return ""


@contextlib.contextmanager
def _unheard() -> Iterator[None]:
    """Without what torch warns, prints and logs of its own internals; what fails is said by our error alone."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _one_line(cause: BaseException) -> str:
    return " ".join(_COLOUR.sub("", str(cause)).split())[:300]


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
    if program.ir_version != target.ir_version:
        raise ExportError(f"asked for IR version {target.ir_version}, the written file says {program.ir_version}")
    names = [port.name for port in (*program.graph.input, *program.graph.output)]
    if names != [INPUT, OUTPUT]:
        raise ExportError(f"the written file has the ports {names}, expected {[INPUT, OUTPUT]}")
