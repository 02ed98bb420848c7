"""What an ONNX file holds, read from its bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

from robust_edge_exporters.artifact import Contents
from robust_edge_exporters.formats.onnx.weights import count_nonzeros, weights_of
from robust_edge_runtimes.core.errors import BundleError


def contents_of(path: Path) -> Contents:
    """Count the non-zeros of a file and read its precision, opset and IR version.

    Raises:
        BundleError: it is not ONNX.
    """
    try:
        program = onnx.load(str(path))
    except Exception as cause:  # protobuf raises classes of its own
        raise BundleError(f"{path} cannot be read as ONNX: {cause}") from cause
    sizes = {"fp32": 0, "fp16": 0, "int8": 0}
    for weight in weights_of(program).values():
        sizes[_precision(weight)] += weight.size
    opsets = [item.version for item in program.opset_import if item.domain in ("", "ai.onnx")]
    return Contents(
        sparsity=count_nonzeros(program),
        precision="int8" if sizes["int8"] else max(sizes, key=lambda name: sizes[name]),
        opset=max(opsets, default=None),
        ir_version=program.ir_version,
    )


def _precision(weight: np.ndarray) -> str:
    if weight.dtype.itemsize == 1:
        return "int8"
    return "fp16" if weight.dtype == np.float16 else "fp32"
