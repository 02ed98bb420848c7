"""Ranges of the tensors of a float network, from what ONNX Runtime computes of calibration images."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from robust_edge_runtimes.core.errors import ExportError

BATCH = 32
Ranges = Mapping[str, tuple[float, float]]


def ranges(model: onnx.ModelProto, tensors: Collection[str], images: npt.NDArray[np.float32]) -> Ranges:
    """The smallest and the largest value of each tensor.

    Args:
        model: with one input (N, C, H, W), of any number of images or of a fixed one.
        tensors: names of tensors in the ONNX file.
        images: (N, C, H, W) in [0, 1].

    Raises:
        ExportError: there are no images, or ONNX Runtime does not compute one of the tensors.
    """
    if not len(images):
        raise ExportError("int8 reads its ranges from training images, and none were given")
    session, port = _session(model, tensors)
    size = port.shape[0] if isinstance(port.shape[0], int) else min(BATCH, len(images))
    whole = images[np.arange(-(-len(images) // size) * size) % len(images)]
    lowest, highest = dict.fromkeys(tensors, np.inf), dict.fromkeys(tensors, -np.inf)
    for first in range(0, len(whole), size):
        computed = session.run(list(tensors), {port.name: whole[first : first + size]})
        for name, values in zip(tensors, computed, strict=True):
            lowest[name] = min(lowest[name], float(np.min(values)))
            highest[name] = max(highest[name], float(np.max(values)))
    return {name: (lowest[name], highest[name]) for name in tensors}


def _session(model: onnx.ModelProto, tensors: Collection[str]) -> tuple[Any, Any]:
    """A session whose outputs are `tensors`, and its input."""
    import onnxruntime as ort

    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    del watched.graph.output[:]
    watched.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    # its optimiser fuses a sum into a convolution although the tensor between them is an output, and then misses it
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = ort.InferenceSession(watched.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as cause:  # ONNX Runtime raises a class of its own for each kind of error
        raise ExportError(
            f"ONNX Runtime cannot compute the ranges of the network: {' '.join(str(cause).split())[:300]}"
        ) from cause
    return session, session.get_inputs()[0]
