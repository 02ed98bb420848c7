"""TensorRT, as a row of the table of formats."""

from __future__ import annotations

from pathlib import Path
from typing import Type

from robust_edge_runtimes.core.runtime import BaseRuntime
from robust_edge_runtimes.formats.cuda import library
from robust_edge_runtimes.formats.format import Format
from robust_edge_runtimes.formats.tensorrt.engine.build import import_tensorrt
from robust_edge_runtimes.formats.tensorrt.runtime import TensorRtRuntime

JETSON = Path("/etc/nv_tegra_release")


class TensorRtFormat(Format):
    """`model.onnx` and a recipe, built into an engine on the device."""

    description = "TensorRT engines"

    @property
    def remedy(self) -> str:
        """On a Jetson TensorRT is a system package, elsewhere a pip package."""
        if JETSON.exists():
            return "sudo apt install nvidia-jetpack, and the system's python3"
        return "pip install 'robust-edge[tensorrt]', beside NVIDIA's driver"

    def runtime(self) -> Type[BaseRuntime]:
        """The engine that is built at first use."""
        return TensorRtRuntime

    def probe(self) -> str:
        """Look for TensorRT's Python module and for a GPU."""
        return f"TensorRT {import_tensorrt().__version__}, GPU {library.Cuda().gpu()}"
