"""The table of artifact formats that can be exported; a row is imported only when it is asked for."""

from __future__ import annotations

from robust_edge_exporters.formats.format import Format
from robust_edge_runtimes.core.errors import unknown_name
from robust_edge_runtimes.core.references import resolve

FORMATS = {
    "csr": "robust_edge_exporters.formats.csr.format:CsrFormat",
    "native": "robust_edge_exporters.formats.native.format:NativeFormat",
    "onnx": "robust_edge_exporters.formats.onnx.format:OnnxFormat",
    "onnx-cuda": "robust_edge_exporters.formats.onnx_cuda.format:OnnxCudaFormat",
    "tensorrt": "robust_edge_exporters.formats.tensorrt.format:TensorRtFormat",
}
"""Name of the format, as in the manifest, to its class."""


def format_named(name: str) -> Format:
    """The format of that name.

    Raises:
        InputError: this release has no such format.
    """
    if name not in FORMATS:
        raise unknown_name("artifact format", name, FORMATS)
    found: Format = resolve(FORMATS[name])()
    return found
