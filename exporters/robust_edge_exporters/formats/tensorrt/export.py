"""Export for TensorRT: an ONNX file that the version can read, and the recipe to build an engine on the device."""

from __future__ import annotations

import dataclasses
import json
import string
import struct
import sys
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from onnx import numpy_helper
from torch import nn

from robust_edge_exporters.artifact import ExportedArtifact, ExportSettings
from robust_edge_exporters.compaction.two_four import two_four_share
from robust_edge_exporters.formats.onnx.export import converted, in_precision, write_program
from robust_edge_exporters.quantisation import QuantisationReport
from robust_edge_exporters.target import Target
from robust_edge_runtimes.core.errors import ExportError
from robust_edge_runtimes.formats.tensorrt.engine.build import version_number

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CALIBRATION = "calibration.cache"
MAX_BATCH = 100
WORKSPACE_MIB = {"8.2": 512}  # boards of that version share 4 GB between CPU and GPU
DEFAULT_WORKSPACE_MIB = 2048
SPARSE_SHARE = 0.5


def export_tensorrt(
    model: nn.Module, shape: tuple[int, ...], target: Target, folder: str, settings: ExportSettings
) -> ExportedArtifact:
    """Write `model.onnx`, `engine.json`, `build_engine.sh` and, where needed, int8 ranges.

    Args:
        model: in evaluation mode; (N, C, H, W) raw pixels to (N, K) logits.
        shape: (C, H, W).
        target: gives the TensorRT version.
        folder: where to write.
        settings: precision, batch size, calibration images.

    Raises:
        ExportError: the network cannot be expressed, or TensorRT's parser would not read it.
    """
    program = converted(model, shape, target, settings.batch)
    _check_operators(program, target)
    written, report = in_precision(program, target, settings)
    artifact = write_program(written, shape, target, folder, settings)
    ranges = _write_ranges(program, target, folder, settings, report)
    share = share_of_two_four(program)
    recipe = _recipe(target, settings, sparse=share >= SPARSE_SHARE, calibrated=ranges)
    (Path(folder) / "engine.json").write_text(json.dumps(recipe, indent=2) + "\n", encoding="utf-8")
    _write_script(Path(folder), recipe, shape, settings.batch)
    notes = _notes(share, artifact.sparsity.keep, target, settings)
    return dataclasses.replace(artifact, notes=notes, quantisation=report)


def share_of_two_four(program: Any) -> float:
    """The share of 2:4 in an ONNX program."""
    return two_four_share(_ungrouped_weights(program))


def _ungrouped_weights(program: Any) -> Iterator[np.ndarray]:
    """Weights (..., inputs) of the layers that are not grouped."""
    initializers = {item.name: item for item in program.graph.initializer}
    for node in program.graph.node:
        if node.op_type not in ("Conv", "Gemm", "MatMul") or node.input[1] not in initializers:
            continue
        attributes = {item.name: item.i for item in node.attribute}
        weight = numpy_helper.to_array(initializers[node.input[1]])
        if attributes.get("group", 1) != 1 or weight.ndim < 2:
            continue
        axis = 1 if node.op_type == "Conv" or attributes.get("transB", 0) else 0
        yield np.moveaxis(weight, axis, -1)


def readable_operators(version: str) -> set[str]:
    """Names of the ONNX operators that the parser of a TensorRT version reads."""
    text = (resources.files(__package__) / "operators.toml").read_text(encoding="utf-8")
    added = tomllib.loads(text)
    return {name for since, row in added.items() if _number(since) <= _number(version) for name in row["operators"]}


def _check_operators(program: Any, target: Target) -> None:
    assert target.tensorrt is not None
    known = readable_operators(target.tensorrt)
    for node in program.graph.node:
        if node.op_type not in known or node.domain not in ("", "ai.onnx"):
            raise ExportError(
                f"operator {node.op_type} of node {node.name!r} (giving {node.output[0]!r}) is not read by TensorRT "
                f"{target.tensorrt}, which {target.name} has; replace it in the network, or export for a newer one"
            )
    initializers = {item.name for item in program.graph.initializer}
    for node in program.graph.node:
        if node.op_type in ("Conv", "ConvTranspose") and node.input[1] not in initializers:
            raise ExportError(
                f"the weights of node {node.name!r} ({node.op_type}) are computed, and TensorRT {target.tensorrt} "
                "takes them as constants only"
            )


def _write_ranges(
    program: Any, target: Target, folder: str, settings: ExportSettings, report: QuantisationReport | None
) -> bool:
    """Write TensorRT's calibration cache: per tensor the step of its 8 bits, as the hex digits of a float."""
    if report is None or target.in_file("int8") == "int8":
        return False
    from robust_edge_exporters.formats.onnx.calibration import distributions

    assert settings.calibration is not None
    lines = [f"TRT-{version_number(str(target.tensorrt))}-EntropyCalibration2"]
    for name, values in sorted(distributions(program, settings.calibration).items()):
        largest = max(map(abs, values.range(report.method)))
        lines.append(f"{name}: {struct.pack('>f', max(largest, 1e-8) / 127).hex()}")
    (Path(folder) / CALIBRATION).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return True


def _recipe(target: Target, settings: ExportSettings, *, sparse: bool, calibrated: bool) -> dict[str, Any]:
    """The settings of build_engine.py and build_engine.sh; the flags have TensorRT's names."""
    flags = []
    if settings.precision == "fp16" and target.fp16 == "flag":
        flags.append("FP16")
    if calibrated:
        flags += ["INT8", "FP16"]
    if sparse:
        flags.append("SPARSE_WEIGHTS")
    return {
        "tensorrt": target.tensorrt,
        "flags": flags,
        "typed": target.in_file(settings.precision) != "fp32",
        "calibration": CALIBRATION if calibrated else None,
        "max_batch": settings.batch or MAX_BATCH,
        "workspace_mib": WORKSPACE_MIB.get(target.tensorrt or "", DEFAULT_WORKSPACE_MIB),
    }


def _write_script(folder: Path, recipe: dict[str, Any], shape: tuple[int, ...], batch: int | None) -> None:
    """Write `build_engine.sh`, which builds with trtexec."""
    template = (resources.files(__package__) / "templates" / "build_engine.sh").read_text(encoding="utf-8")
    values = {
        "fp16": int("FP16" in recipe["flags"]),
        "int8": int("INT8" in recipe["flags"]),
        "sparse": int("SPARSE_WEIGHTS" in recipe["flags"]),
        "typed": int(recipe["typed"]),
        "workspace": recipe["workspace_mib"],
        "calibrated_for": version_number(recipe["tensorrt"]),
        "shape": "x".join(map(str, shape)),
        "batches": str(batch or f"1 {recipe['max_batch']}"),
        "dynamic": int(batch is None),
    }
    script = folder / "build_engine.sh"
    script.write_text(string.Template(template).substitute(values), encoding="utf-8")
    script.chmod(0o755)


def _notes(share: float, keep: float, target: Target, settings: ExportSettings) -> tuple[str, ...]:
    notes = []
    if share >= SPARSE_SHARE:
        notes.append(
            f"{100 * share:.0f}% of the weights that can be 2:4 are, checked: the recipe turns sparse tactics on."
        )
    elif keep < 1:
        notes.append(
            f"TensorRT will not run this network faster for its zeros: {100 * keep:.1f}% of the weights are kept, but "
            "not in the 2:4 pattern, which is the only one that it uses."
        )
    if target.in_file(settings.precision) != settings.precision:
        less = {"fp16": "fp16", "int8": "8 bits"}[settings.precision]
        notes.append(f"The file holds fp32; the engine computes in {less}, which only verify on the device can judge.")
    return tuple(notes)


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
