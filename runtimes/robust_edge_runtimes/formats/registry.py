"""Artifact format to runtime, resolved only when it is asked for."""

from __future__ import annotations

import importlib
from typing import Dict, Type

from robust_edge_runtimes.core.errors import BackendUnavailable, unknown_name
from robust_edge_runtimes.core.runtime import BaseRuntime

RUNTIMES: Dict[str, str] = {
    "csr": "robust_edge_runtimes.formats.csr.runtime:CsrRuntime",
    "native": "robust_edge_runtimes.formats.native.runtime:NativeRuntime",
    "onnx": "robust_edge_runtimes.formats.onnx.runtime:OnnxRuntime",
    "onnx-cuda": "robust_edge_runtimes.formats.onnx_cuda.runtime:OnnxCudaRuntime",
    "tensorrt": "robust_edge_runtimes.formats.tensorrt.runtime:TensorRtRuntime",
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
