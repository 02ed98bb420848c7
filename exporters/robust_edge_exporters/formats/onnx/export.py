"""Export to ONNX: one file of an opset with folded batch-norms, in any precision, for any or a fixed batch size."""

from __future__ import annotations

import copy
import dataclasses
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from robust_edge_exporters.artifact import ExportedArtifact, ExportSettings
from robust_edge_exporters.formats.onnx.adaptive_pools import PlainPools
from robust_edge_exporters.formats.onnx.conversion_error import reason, silenced
from robust_edge_exporters.formats.onnx.conversions import current_conversions, sources_of
from robust_edge_exporters.formats.onnx.kept_apart import kept_apart
from robust_edge_exporters.formats.onnx.symbolics import register_symbolics
from robust_edge_exporters.formats.onnx.weights import count_nonzeros, weights_of
from robust_edge_exporters.quantisation import QuantisationReport
from robust_edge_exporters.target import Target
from robust_edge_exporters.weight_uses import BRANCHES, FIXED, LeftOut, weight_uses
from robust_edge_runtimes.core.errors import ExportError, InputError
from robust_edge_runtimes.core.manifest import TensorSpec

INPUT, OUTPUT = "images", "logits"
FILE = "model.onnx"
DEFAULTS = ExportSettings()


def export_onnx(
    model: nn.Module, shape: tuple[int, ...], target: Target, folder: str, settings: ExportSettings = DEFAULTS
) -> ExportedArtifact:
    """Write `model.onnx`.

    Args:
        model: in evaluation mode; (N, C, H, W) raw pixels to (N, K) logits.
        shape: (C, H, W).
        target: sets opset and IR version, which are checked on the written bytes.
        folder: where to write.
        settings: precision, batch size, calibration images, metadata.

    Raises:
        ExportError: the network cannot be converted, or the file is not valid or not of this opset.
    """
    program, report = in_precision(converted(model, shape, target, settings.batch), target, settings)
    return dataclasses.replace(write_program(program, shape, target, folder, settings), quantisation=report)


def converted(model: nn.Module, shape: tuple[int, ...], target: Target, batch: int | None = None) -> Any:
    """Convert the network to an fp32 program of the target's opset whose constants are all initializers.

    Raises:
        InputError: the target does not run ONNX.
        ExportError: the network cannot be converted.
    """
    if target.opset is None:
        raise InputError(f"target {target.name} has no opset; it does not run ONNX")
    made, key = current_conversions(), (id(model), target.exporter, target.opset, target.ir_version, batch)
    if made is not None and key in made.programs:
        return copy.deepcopy(made.programs[key][1])
    convert = _by_dynamo if target.exporter == "dynamo" else _by_torchscript
    example = torch.rand(batch or 2, *shape, generator=torch.Generator().manual_seed(0))
    found = weight_uses(model, shape)
    shared = any(use.times > 1 for use in found.uses)
    try:
        with silenced(), PlainPools(), kept_apart():
            program = convert(model, example, target.opset, batch is None, shared)
    except Exception as cause:  # torch.onnx raises a different class for every stage
        raise ExportError(
            f"the network cannot be written as ONNX for {target.name} (opset {target.opset}): "
            f"{reason(cause, model, example)}"
        ) from cause
    if found.branches:  # the older exporter writes one of the branches and says nothing
        raise ExportError(f"the network cannot be written as ONNX for {target.name}: {BRANCHES}")
    if made is not None:
        made.sources.update(sources_of(program))
    _remove_source_notes(program)
    program.ir_version = target.ir_version
    name_transposed(program, model)
    mark_fixed(program, found.left_out)
    if made is not None:
        made.programs[key] = model, copy.deepcopy(program)
    return program


def in_precision(program: Any, target: Target, settings: ExportSettings) -> tuple[Any, QuantisationReport | None]:
    """Convert an fp32 program to the precision that the target's file holds, and report how 8 bits were calibrated."""
    stored = target.in_file(settings.precision)
    if stored == "fp16":
        from robust_edge_exporters.formats.onnx.fp16 import to_fp16

        return to_fp16(program), None
    if settings.precision == "int8" and target.int8 is not None:
        from robust_edge_exporters.formats.onnx.int8 import Quantiser

        quantiser = Quantiser(program, target.int8, settings)
        return (quantiser.program() if stored == "int8" else program), quantiser.report()
    return program, None


def write_program(
    program: Any, shape: tuple[int, ...], target: Target, folder: str, settings: ExportSettings
) -> ExportedArtifact:
    """Serialise a program, check the bytes, and write them.

    Returns:
        A description of the written bytes.

    Raises:
        ExportError: they are not valid ONNX, or not of the target's opset, IR version and ports.
    """
    program.ir_version = target.ir_version
    onnx.helper.set_model_props(program, dict(settings.metadata))
    program.DiscardUnknownFields()
    blob = bytes(program.SerializeToString(deterministic=True))  # as `onnx_differences` writes it again
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


def name_transposed(program: Any, model: nn.Module) -> None:
    """Name transposed weights after the network's parameters; torch numbers them, as `val_12`.

    The transpose of a weight that is stored as it is, too, is no weight of its own.
    """
    own = {name: parameter.detach().numpy() for name, parameter in model.named_parameters() if parameter.ndim == 2}
    absent = own.keys() - {item.name for item in program.graph.initializer}
    for stored, weight in weights_of(program).items():
        name = next((name for name in own if name in absent and np.array_equal(own[name].T, weight)), None)
        if stored not in own and name is not None:
            _rename(program.graph, stored, name)
            absent.remove(name)
        elif stored not in own and any(np.array_equal(value.T, weight) for value in own.values()):
            _rename(program.graph, stored, FIXED + stored)


def mark_fixed(program: Any, left_out: Iterable[LeftOut]) -> None:
    """Rename initializers that are used like weights and are not prunable, so that `weights_of` leaves them out.

    An initializer is recognised by its numbers of weights and of non-zeros, which is all that is counted; by the number
    of weights alone where folding has changed the other.
    """
    for item in (item for item in left_out if item.weights):
        same = {name: weight for name, weight in weights_of(program).items() if weight.size == item.weights}
        exact = [name for name, weight in same.items() if np.count_nonzero(weight) == item.nonzero]
        for name in (exact or [*same])[:1]:
            _rename(program.graph, name, FIXED + name)


def _rename(graph: Any, old: str, new: str) -> None:
    for item in graph.initializer:
        item.name = new if item.name == old else item.name
    for node in graph.node:
        node.input[:] = [new if name == old else name for name in node.input]


class _Wrapped(nn.Module):
    """The same network, with a longer name for every tensor."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """As the network."""
        logits: torch.Tensor = self.model(images)
        return logits


def _by_dynamo(model: nn.Module, example: torch.Tensor, opset: int, any_batch: bool, shared: bool) -> Any:
    try:
        return _exported(model, example, opset, any_batch)
    except Exception as cause:
        if not _names_clash(cause):
            raise
        return _exported(_Wrapped(model), example, opset, any_batch)


def _names_clash(cause: BaseException | None) -> bool:
    """Whether torch's optimiser named a folded constant like one of the network's tensors, for example `mean`."""
    while cause is not None:
        if isinstance(cause, ValueError) and "is already registered" in str(cause):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def _exported(model: nn.Module, example: torch.Tensor, opset: int, any_batch: bool) -> Any:
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


def _by_torchscript(model: nn.Module, example: torch.Tensor, opset: int, any_batch: bool, shared: bool) -> Any:
    buffer = io.BytesIO()
    register_symbolics()
    torch.onnx.export(
        model,
        (example,),
        buffer,  # type: ignore[arg-type] # its documentation allows a file object
        dynamo=False,
        opset_version=opset,
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamic_axes={INPUT: {0: "N"}, OUTPUT: {0: "N"}} if any_batch else None,
        # EVAL folds batch-norms, and writes a weight that is used twice as two
        training=torch.onnx.TrainingMode.PRESERVE if shared else torch.onnx.TrainingMode.EVAL,
    )
    program = onnx.load_from_string(buffer.getvalue())
    _lift_constants(program)
    return program


def _lift_constants(program: Any) -> None:
    """Turn Constant nodes into initializers and remove Identity nodes.

    torch's TorchScript exporter writes both, and TensorRT 8.2 reads weights from initializers only.
    """
    import onnx_ir  # imports sympy
    from onnx_ir.passes import common as passes

    model = onnx_ir.from_proto(program)
    passes.LiftConstantsToInitializersPass(size_limit=0)(model)
    passes.IdentityEliminationPass()(model)
    program.graph.CopyFrom(onnx_ir.to_proto(model.graph))
    del program.graph.value_info[:]  # onnx-ir adds the shapes of initializers


def _remove_source_notes(program: Any) -> None:
    """Remove torch's notes on where each node and value comes from: they hold paths of this machine.

    IR versions before 10 have no field for them. onnx-ir's `ClearMetadataAndDocStringPass` leaves those of values.
    """
    graph = program.graph
    for item in (program, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        item.ClearField("doc_string")
        item.ClearField("metadata_props")


def _check_program(program: Any, target: Target) -> None:
    try:
        onnx.checker.check_model(program, full_check=True)
    except Exception as cause:  # the checker and shape inference raise classes of their own
        reason = " ".join(str(cause).split())[:300]
        raise ExportError(f"the network converted for {target.name} is not valid ONNX: {reason}") from cause
    shapes = [[size.dim_value for size in port.type.tensor_type.shape.dim] for port in program.graph.output]
    if len(shapes) != 1 or len(shapes[0]) != 2 or shapes[0][1] < 1:
        raise ExportError(f"the network must give logits of shape (N, K), its outputs are {shapes} (0 for any size)")


def _check_written(program: Any, target: Target) -> None:
    opsets = {item.domain: item.version for item in program.opset_import}
    if opsets.get("", opsets.get("ai.onnx")) != target.opset or set(opsets) - {"", "ai.onnx"}:
        raise ExportError(f"the written file has opset {opsets} instead of {target.opset}")
    if program.ir_version != target.ir_version:
        raise ExportError(f"the written file has IR version {program.ir_version} instead of {target.ir_version}")
    names = [port.name for port in (*program.graph.input, *program.graph.output)]
    if names != [INPUT, OUTPUT]:
        raise ExportError(f"the written file has the ports {names}, expected {[INPUT, OUTPUT]}")
