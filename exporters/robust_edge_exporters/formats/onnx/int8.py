"""Static quantisation to 8 bits: ranges come from training images; weights have one scale per output channel.

Weights are symmetric around zero, so a zero weight is the integer 0 and stays exactly zero.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from robust_edge_exporters.target import Quantisation
from robust_edge_runtimes.core.errors import ExportError

BATCH = 32
# Nodes before the first of these normalise the pixels. They stay in fp32, since 8 bits would round the image itself.
FIRST = {"Conv", "ConvTranspose", "Gemm", "MatMul"}


def quantised(program: Any, style: Quantisation, images: np.ndarray | None) -> Any:
    """Insert Quantize/Dequantize pairs around the operators that run in 8 bits.

    Args:
        program: fp32, batch-norm folded.
        style: the settings of the target's quantisation.
        images: (N, C, H, W) float32 in [0, 1] from which the ranges are determined.

    Raises:
        ExportError: no images, or ONNX Runtime's quantiser cannot handle the network.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    named = onnx.shape_inference.infer_shapes(program)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), _without_advice():
        warnings.simplefilter("ignore")
        path = Path(folder) / "quantised.onnx"
        try:
            quantize_static(
                named,
                str(path),
                _Reader(program, _required(images)),
                quant_format=QuantFormat.QDQ,
                activation_type=QuantType.QInt8,
                weight_type=QuantType.QInt8,
                per_channel=True,
                reduce_range=style.reduce_range,
                nodes_to_exclude=_normalisation(program),
                calibrate_method=CalibrationMethod.MinMax,
                extra_options={
                    "ActivationSymmetric": style.symmetric,
                    "WeightSymmetric": True,
                    "QuantizeBias": style.bias,
                },
            )
        except Exception as cause:  # the quantiser raises whatever the graph provokes
            raise ExportError(
                f"ONNX Runtime cannot quantise the network: {' '.join(str(cause).split())[:300]}"
            ) from cause
        written = onnx.load(str(path))
    _drop_unused_domains(written)
    del written.metadata_props[:]
    return written


def ranges(program: Any, images: np.ndarray | None) -> dict[str, float]:
    """Return the largest absolute value of every float tensor over the calibration images, by the tensor's name."""
    from onnxruntime.quantization.calibrate import CalibrationMethod, create_calibrator

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), _without_advice():
        warnings.simplefilter("ignore")
        path = Path(folder) / "model.onnx"
        onnx.save(onnx.shape_inference.infer_shapes(program), str(path))
        calibrator = create_calibrator(
            path, [], str(Path(folder) / "augmented.onnx"), calibrate_method=CalibrationMethod.MinMax
        )
        calibrator.collect_data(_Reader(program, _required(images)))
        found = calibrator.compute_data()
    return {
        name: float(max(abs(np.min(data.range_value[0])), abs(np.max(data.range_value[1]))))
        for name, data in found.items()
    }


class _Reader:
    """Feeds images to ONNX Runtime's calibrator, in whole batches."""

    def __init__(self, program: Any, images: np.ndarray) -> None:
        port = program.graph.input[0]
        size = port.type.tensor_type.shape.dim[0].dim_value or BATCH
        whole = images[: max(len(images) // size, 1) * size]
        self._name = port.name
        self._batches: Iterator[np.ndarray] = (whole[i : i + size] for i in range(0, len(whole), size))

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next batch, or None after the last."""
        batch = next(self._batches, None)
        return None if batch is None else {self._name: batch}


def _required(images: np.ndarray | None) -> np.ndarray:
    if images is None or not len(images):
        raise ExportError("int8 needs training images to read its ranges from, and none were given")
    return np.ascontiguousarray(images, np.float32)


def _normalisation(program: Any) -> list[str]:
    """Names of the nodes before the first weighted one; every node gets a name."""
    before: list[str] = []
    for i, node in enumerate(program.graph.node):
        node.name = node.name or f"node_{i}"
        if node.op_type in FIRST:
            return before
        before.append(node.name)
    return before


def _drop_unused_domains(program: Any) -> None:
    used = {node.domain for node in program.graph.node}
    kept = [item for item in program.opset_import if item.domain in used]
    del program.opset_import[:]
    program.opset_import.extend(kept)


@contextlib.contextmanager
def _without_advice() -> Iterator[None]:
    """Suppress ONNX Runtime's advice to preprocess the file, which does not apply to ours."""
    level = logging.root.level
    logging.root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logging.root.setLevel(level)
