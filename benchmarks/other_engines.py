"""Engines of others that sparse_engine.py times where they are installed (`pip install '.[openvino]'`)."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Infer = Callable[[np.ndarray], np.ndarray]


def other_engines(folder: Path, threads: int) -> dict[str, Infer]:
    """OpenVINO on `model.onnx` and `int8.onnx` of a folder, by name; empty if it is not installed, or for more threads.

    With two threads it used one core only where this was tried, and its threads disturbed the other engines.
    DeepSparse, which skips pruned weights too, is not among them: its last release, 1.8, needs onnx below 1.15.
    """
    if threads > 1 or importlib.util.find_spec("openvino") is None:
        return {}
    files = {"openvino fp32": "model.onnx", "openvino int8": "int8.onnx"}
    return {name: openvino(folder / file) for name, file in files.items()}


def openvino(path: Path) -> Infer:
    """The network in OpenVINO on one thread, compiled for one batch at a time; float32 stays float32 on CPUs with bfloat16."""
    import openvino

    core = openvino.Core()
    settings = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}

    def compiled(shape: tuple[int, ...]) -> Infer:
        model = core.read_model(str(path))
        model.reshape(list(shape))
        request = core.compile_model(model, "CPU", settings).create_infer_request()
        return lambda images: request.infer([images], share_inputs=True, share_outputs=True)[0]

    return for_each_shape(compiled)


def for_each_shape(compiled: Callable[[tuple[int, ...]], Infer]) -> Infer:
    """A function that compiles the network at the first batch of each shape."""
    found: dict[tuple[int, ...], Any] = {}

    def infer(images: np.ndarray) -> np.ndarray:
        if images.shape not in found:
            found[images.shape] = compiled(images.shape)
        logits: np.ndarray = found[images.shape](images)
        return logits

    return infer
