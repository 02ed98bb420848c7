"""ONNX artifacts on ONNX Runtime, on an NVIDIA GPU; never on the CPU instead."""

from __future__ import annotations

from robust_edge_runtimes.formats.onnx.runtime import OnnxRuntime


class OnnxCudaRuntime(OnnxRuntime):
    """Executes `model.onnx` on CUDA; ONNX Runtime would go to the CPU without a word, this refuses."""

    provider = "CUDAExecutionProvider"
    device = "cuda"
    extra = "onnxruntime-gpu"
