"""Artifact format to runtime, resolved only when it is asked for."""

from __future__ import annotations

import importlib
from typing import Dict, Type

from robust_edge_runtimes.errors import BackendUnavailable, unknown_name
from robust_edge_runtimes.runtime import BaseRuntime

RUNTIMES: Dict[str, str] = {
    "csr": "robust_edge_runtimes.adapters.csr:CsrRuntime",
    "native": "robust_edge_runtimes.adapters.native:NativeRuntime",
    "onnx": "robust_edge_runtimes.adapters.onnx:OnnxRuntime",
    "onnx-cuda": "robust_edge_runtimes.adapters.onnx_cuda:OnnxCudaRuntime",
    "tensorrt": "robust_edge_runtimes.adapters.tensorrt:TensorRtRuntime",
}


def runtime_class(artifact_format: str) -> Type[BaseRuntime]:
    """The runtime that executes an artifact format.

    Raises:
        BackendUnavailable: this release has no runtime for it.
    """
    if artifact_format not in RUNTIMES:
        raise unknown_name("artifact format", artifact_format, RUNTIMES, BackendUnavailable)
    module, name = RUNTIMES[artifact_format].split(":")
    found: Type[BaseRuntime] = getattr(importlib.import_module(module), name)
    return found
