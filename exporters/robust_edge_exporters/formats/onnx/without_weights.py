"""The graph of a network without its weights: a few kilobytes from which a dense network can be built."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from robust_edge_exporters.formats.onnx.weights import weights_of
from robust_edge_runtimes.core.errors import BundleError

GRAPH = "graph.onnx"


def without_weights(program: Any) -> Any:
    """Copy a program without the values of the weights of convolutions and matrix products; their shapes stay."""
    weighted = weights_of(program)
    emptied = onnx.ModelProto()
    emptied.CopyFrom(program)
    del emptied.metadata_props[:], emptied.graph.value_info[:]
    for item in emptied.graph.initializer:
        if item.name in weighted:
            item.CopyFrom(onnx.TensorProto(name=item.name, data_type=item.data_type, dims=item.dims))
    return emptied


def with_random_weights(program: Any) -> Any:
    """Copy a program and fill missing weights with random non-zero values, scaled to keep activations in range.

    Raises:
        BundleError: a missing weight is not fp32, or its shape has no elements or more than 2³¹.
    """
    random = np.random.default_rng(0)
    filled = onnx.ModelProto()
    filled.CopyFrom(program)
    for item in filled.graph.initializer:
        if not math.prod(item.dims) or item.raw_data or item.float_data:
            continue
        item.CopyFrom(numpy_helper.from_array(_random(item, random), item.name))
    return filled


def _random(item: Any, random: np.random.Generator) -> np.ndarray:
    shape = tuple(item.dims)
    if item.data_type != onnx.TensorProto.FLOAT or not 0 < math.prod(shape) < 1 << 31 or min(shape) < 1:
        raise BundleError(f"{GRAPH}: weight {item.name!r} of shape {shape} cannot be filled; export the bundle again")
    bound = math.sqrt(6 / max(1, math.prod(shape[1:])))  # uniform with He's variance
    values: np.ndarray = (random.uniform(0.01, 1, shape) * random.choice((-bound, bound), shape)).astype(np.float32)
    return values
