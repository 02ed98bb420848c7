"""Engines of others that sparse_engine.py times where they are installed (`pip install '.[openvino]'`)."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np

Infer = Callable[[np.ndarray], np.ndarray]


def other_engines(folder: Path, threads: int) -> dict[str, Infer]:
    """OpenVINO on `model.onnx` and `int8.onnx` of a folder, by name; empty if it is not installed, or for more threads.

    With two threads it used one core only where this was tried, and its threads disturbed the other engines.
    DeepSparse, which skips pruned weights too, is not among them: its last release, 1.8, needs onnx below 1.15.
    """
    if threads > 1 or not has_openvino():
        return {}
    files = {"openvino fp32": "model.onnx", "openvino int8": "int8.onnx"}
    return {name: openvino(folder / file) for name, file in files.items()}


def has_openvino() -> bool:
    """Whether it is installed."""
    return importlib.util.find_spec("openvino") is not None


def openvino(path: Path) -> Infer:
    """The network in OpenVINO on one thread, for batches of one size; float32 stays float32 where there is bfloat16."""
    import openvino

    core, requests = openvino.Core(), {}
    settings = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}

    def infer(images: np.ndarray) -> np.ndarray:
        if images.shape not in requests:
            model = core.read_model(str(path))
            model.reshape(list(images.shape))
            requests[images.shape] = core.compile_model(model, "CPU", settings).create_infer_request()
        logits: np.ndarray = requests[images.shape].infer([images], share_inputs=True, share_outputs=True)[0]
        return logits

    return infer
