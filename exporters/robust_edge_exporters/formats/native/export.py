"""Export to the sparse engine: C source and its companions, generated from the ONNX file of another target."""

from __future__ import annotations

import dataclasses
import platform
import tempfile
from pathlib import Path
from typing import Literal

import onnx
from torch import nn

from robust_edge_exporters.artifact import ExportedArtifact, ExportSettings
from robust_edge_exporters.formats.native.integers import with_ranges
from robust_edge_exporters.formats.native.options import SYMBOL_PREFIX
from robust_edge_exporters.formats.native.sparsity import counted_once
from robust_edge_exporters.formats.onnx.export import INPUT, OUTPUT, converted, write_program
from robust_edge_exporters.formats.onnx.without_weights import GRAPH, without_weights
from robust_edge_exporters.native.export import LayerReport, NativeExport, export_native
from robust_edge_exporters.target import Target, target_named
from robust_edge_runtimes.core.manifest import LayerCount, LayerForm, Sparsity, TensorSpec
from robust_edge_runtimes.formats.native.engine import SOURCE, WEIGHTS, compile_library, find_compiler

WEIGHTS_OF: dict[str, Literal["fp32", "fp16", "int8"]] = {"fp32": "fp32", "fp16": "fp16", "int8": "int8"}
FULL = 0.8
"""Share of weights in blocks that are not zero, above which blocks count as full: some weights round to zero."""
UNEVEN = 1.2
"""Expected time over that of an even distribution of the zeros, above which an export says so."""


def export_native_artifact(
    model: nn.Module, shape: tuple[int, ...], target: Target, folder: str, settings: ExportSettings
) -> ExportedArtifact:
    """Write `model.c`, `weights.bin` and the files that a device or another program needs to build and call them.

    Args:
        model: in evaluation mode; (N, C, H, W) raw pixels to (N, K) logits.
        shape: (C, H, W).
        target: names the ONNX target that the network is converted for, and the machines that it serves.
        folder: where to write.
        settings: precision; fp16 stores weights in 16 bits, the arithmetic is fp32, and int8 reads ranges from the
            calibration images. The option `symbol_prefix`.

    Raises:
        InputError: the prefix is no C identifier.
        ExportError: the network has an operator that the engine does not run, or weights beyond fp16.
    """
    out, prefix = Path(folder), settings.options.get(SYMBOL_PREFIX.name) or SYMBOL_PREFIX.default
    with tempfile.TemporaryDirectory() as scratch:
        written = write_dense(model, shape, target, scratch, settings)
        export = export_native(
            Path(scratch) / written.file,
            out,
            weights=WEIGHTS_OF[settings.precision],
            symbol_prefix=str(prefix),
            calibration=settings.calibration,
            ranges=settings.ranges,
        )
        program = onnx.load(str(Path(scratch) / written.file))
    onnx.save(with_ranges(without_weights(program), export.ranges), str(out / GRAPH))
    companions = set(export.files) - {SOURCE}
    if settings.compile_library and platform.machine() in target.machines and find_compiler() is not None:
        companions.add(compile_library(out).name)
    return ExportedArtifact(
        file=SOURCE,
        format=target.format,
        precision=settings.precision,
        input=TensorSpec(INPUT, (settings.batch, *shape)),
        output=TensorSpec(OUTPUT, (settings.batch, export.outputs)),
        sparsity=counted(export),
        layers=tuple(form(layer) for layer in export.layers),
        notes=distribution_notes(export) + (block_notes(export) if settings.precision == "int8" else ()),
        companions=tuple(sorted(companions)),
        weights_file=WEIGHTS,
    )


def distribution_notes(export: NativeExport) -> tuple[str, ...]:
    """What the distribution of the zeros over the layers costs, unless it costs little.

    The time is expected to be proportional to the multiply-adds that are left.
    """
    kept = export.nonzeros / max(1, sum(layer.weights for layer in export.layers))
    left = export.macs / max(1, sum(layer.dense_macs for layer in export.layers))
    if left <= UNEVEN * kept:
        return ()
    return (
        f"{100 * kept:.1f}% of the weights are left, but {100 * left:.1f}% of the multiply-adds: the expected time is "
        f"{left / kept:.1f} times that of the same number of weights spread evenly over the layers; `compress "
        "--scope macs`, with `--init RUN` for a trained network, chooses them by multiply-adds",
    )


def block_notes(export: NativeExport) -> tuple[str, ...]:
    """How full the blocks of four weights are, unless they are as full as scheme `block` makes them."""
    if export.fill > FULL:
        return ()
    return (
        f"kernels multiply four input channels at once: the blocks of four with a non-zero hold {export.in_blocks} "
        f"weights, of which {100 * export.fill:.0f}% are not zero; `compress --scheme block`, which fills its blocks, "
        f"keeps {1 / export.fill:.1f} times as many weights in the same time",
    )


def write_dense(
    model: nn.Module, shape: tuple[int, ...], target: Target, folder: str, settings: ExportSettings
) -> ExportedArtifact:
    """Write the network as ONNX in fp32, as for the target named by `made_from`."""
    assert target.made_from is not None
    source = target_named(target.made_from)
    program = converted(model, shape, source, settings.batch)
    return write_program(program, shape, source, folder, dataclasses.replace(settings, precision="fp32"))


def counted(export: NativeExport) -> Sparsity:
    """Non-zeros in weights.bin."""
    return counted_once(LayerCount(layer.name, layer.weights, layer.nonzeros) for layer in export.layers)


def form(layer: LayerReport) -> LayerForm:
    """The manifest's row of a layer."""
    return LayerForm(
        layer.name, layer.kernel, layer.weights, layer.nonzeros, macs=layer.macs, dense_macs=layer.dense_macs
    )
