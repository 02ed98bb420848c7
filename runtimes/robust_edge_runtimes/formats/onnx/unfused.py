"""ONNX Runtime without its 8-bit kernels: quantised operators computed as the file states them.

On x86 CPUs without VNNI those kernels add pairs of 8-bit products in 16 bits, which saturates where weights use all of
their 8 bits. ARM CPUs, TensorRT and CPUs with VNNI do not do that, so that a file for them is judged by what it states:
every Quantize and Dequantize rounds, the operators between them compute in fp32, which holds these sums exactly enough.
"""

from __future__ import annotations

import platform
from pathlib import Path
from typing import ClassVar, Mapping, Optional

from robust_edge_runtimes.formats.onnx.runtime import OnnxRuntime

X86 = ("x86_64", "AMD64", "i686")


class UnfusedOnnxRuntime(OnnxRuntime):
    """As OnnxRuntime, with the fusion of Quantize/Dequantize pairs turned off."""

    session_settings: ClassVar[Mapping[str, str]] = {"session.disable_quant_qdq": "1"}
    arithmetic = "8-bit operators as the file states them"


def fused_kernels_may_saturate() -> bool:
    """Whether this is an x86 CPU. Those with VNNI do not saturate, but one verdict should not depend on which it is."""
    return platform.machine() in X86


def has_vnni() -> Optional[bool]:
    """Whether this x86 CPU multiplies 8-bit numbers without saturation; None where that cannot be read."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return None
    flags = next((line.split(":", 1)[1].split() for line in lines if line.startswith("flags")), None)
    return None if flags is None else bool({"avx512_vnni", "avx_vnni"} & set(flags))
