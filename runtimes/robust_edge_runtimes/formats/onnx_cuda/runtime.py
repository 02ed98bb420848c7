"""ONNX artifacts on ONNX Runtime, on an NVIDIA GPU."""

from __future__ import annotations

from robust_edge_runtimes.formats.onnx.runtime import OnnxRuntime


class OnnxCudaRuntime(OnnxRuntime):
    """Executes `model.onnx` on CUDA; raises BackendUnavailable where ONNX Runtime would silently use the CPU."""

    uses_threads = False
    provider = "CUDAExecutionProvider"
    device = "cuda"
    extra = "onnxruntime-gpu"
