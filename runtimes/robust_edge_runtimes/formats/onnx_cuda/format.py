"""ONNX on an NVIDIA GPU, as a row of the table of formats."""

from __future__ import annotations

from typing import Type

from robust_edge_runtimes.core.runtime import BaseRuntime
from robust_edge_runtimes.formats.cuda import library
from robust_edge_runtimes.formats.format import Format
from robust_edge_runtimes.formats.onnx.format import find_provider
from robust_edge_runtimes.formats.onnx_cuda.runtime import OnnxCudaRuntime


class OnnxCudaFormat(Format):
    """`model.onnx`, executed by ONNX Runtime's CUDA provider."""

    description = "ONNX on an NVIDIA GPU"
    remedy = "pip uninstall onnxruntime && pip install 'robust-edge[onnxruntime-gpu]', beside NVIDIA's driver and CUDA"
    dense_kernels = True

    def runtime(self) -> Type[BaseRuntime]:
        """ONNX Runtime on CUDA."""
        return OnnxCudaRuntime

    def probe(self) -> str:
        """Look for ONNX Runtime's CUDA provider and for a GPU, since the provider is listed without one, too."""
        return f"{find_provider(OnnxCudaRuntime.provider)}, GPU {library.Cuda().gpu()}"
