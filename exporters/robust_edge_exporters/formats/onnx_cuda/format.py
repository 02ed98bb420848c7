"""ONNX for NVIDIA GPUs: its row of the table of formats."""

from __future__ import annotations

from robust_edge_exporters.formats.onnx.format import OnnxFormat


class OnnxCudaFormat(OnnxFormat):
    """`model.onnx`, for ONNX Runtime's CUDA provider."""

    needs = "numpy, onnxruntime-gpu and CUDA"

    def backend(self) -> str:
        """The CPU's, on the other provider."""
        return OnnxFormat().backend().replace("CPUExecutionProvider", "CUDAExecutionProvider")
