"""The table of artifact formats on the device side; a row is imported only when it is used."""

from __future__ import annotations

from typing import Dict, Type

from robust_edge_runtimes.core.errors import BackendUnavailable, unknown_name
from robust_edge_runtimes.core.references import resolve
from robust_edge_runtimes.core.runtime import BaseRuntime
from robust_edge_runtimes.formats.format import Format

FORMATS: Dict[str, str] = {
    "onnx": "robust_edge_runtimes.formats.onnx.format:OnnxFormat",
    "onnx-cuda": "robust_edge_runtimes.formats.onnx_cuda.format:OnnxCudaFormat",
    "csr": "robust_edge_runtimes.formats.csr.format:CsrFormat",
    "native": "robust_edge_runtimes.formats.native.format:NativeFormat",
    "tensorrt": "robust_edge_runtimes.formats.tensorrt.format:TensorRtFormat",
}
"""Name of the format, as in the manifest, to its class."""


def format_named(name: str) -> Format:
    """The format of that name.

    Raises:
        BackendUnavailable: this release has no such format.
    """
    if name not in FORMATS:
        raise unknown_name("artifact format", name, FORMATS, BackendUnavailable)
    found: Format = resolve(FORMATS[name])()
    return found


def runtime_class(name: str) -> Type[BaseRuntime]:
    """The runtime that executes artifacts of the format of that name.

    Raises:
        BackendUnavailable: this release has no such format.
    """
    return format_named(name).runtime()
