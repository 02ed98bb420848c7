"""ONNX on the CPU, as a row of the table of formats."""

from __future__ import annotations

import importlib
from typing import Optional, Type

from robust_edge_runtimes.core.errors import BackendUnavailable
from robust_edge_runtimes.core.runtime import BaseRuntime
from robust_edge_runtimes.formats.format import Format
from robust_edge_runtimes.formats.onnx.runtime import OnnxRuntime
from robust_edge_runtimes.formats.onnx.unfused import UnfusedOnnxRuntime, fused_kernels_may_saturate, has_vnni


class OnnxFormat(Format):
    """`model.onnx`, executed by ONNX Runtime."""

    description = "ONNX on the CPU"
    remedy = "pip install 'robust-edge[onnxruntime]'"
    dense_kernels = True

    def runtime(self) -> Type[BaseRuntime]:
        """ONNX Runtime on the CPU."""
        return OnnxRuntime

    def exact_runtime(self, full_range: bool) -> Type[BaseRuntime]:
        """ONNX Runtime, without its fused 8-bit kernels where they may saturate on weights of full range."""
        return UnfusedOnnxRuntime if full_range and fused_kernels_may_saturate() else OnnxRuntime

    def other_kernels(self, model: BaseRuntime) -> Optional[Type[BaseRuntime]]:
        """With fused 8-bit kernels where `model` has none, and the other way round."""
        return OnnxRuntime if isinstance(model, UnfusedOnnxRuntime) else UnfusedOnnxRuntime

    def kernels_here(self) -> str:
        """ONNX Runtime's 8-bit kernels, which saturate on CPUs without VNNI."""
        vnni = {True: "with VNNI", False: "without VNNI, which saturates", None: "with or without VNNI"}[has_vnni()]
        return f"ONNX Runtime's 8-bit kernels on this CPU ({vnni})"

    def probe(self) -> str:
        """Look for ONNX Runtime's CPU provider."""
        return find_provider(OnnxRuntime.provider)


def find_provider(provider: str) -> str:
    """The version of ONNX Runtime and the provider.

    Raises:
        ImportError: ONNX Runtime is not installed.
        BackendUnavailable: it was built without the provider.
    """
    ort = importlib.import_module("onnxruntime")
    known = ort.get_available_providers()
    if provider not in known:
        raise BackendUnavailable(f"onnxruntime {ort.__version__} has no {provider}, only {', '.join(known)}")
    return f"onnxruntime {ort.__version__}, {provider}"
