"""The table of artifact formats that can be exported; a row is imported only when it is used."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from robust_edge_exporters.format_option import FormatOption
from robust_edge_runtimes.core.errors import unknown_name
from robust_edge_runtimes.core.references import resolve

if TYPE_CHECKING:
    from robust_edge_exporters.formats.format import Format


@dataclasses.dataclass(frozen=True)
class Row:
    """Where a format is defined.

    Attributes:
        format: the class, as `module:Class`.
        options: a tuple of its own options, as `module:NAME`; that module must not import torch, since the command
            line reads it. Empty for a format without options.
    """

    format: str
    options: str = ""


FORMATS = {
    "csr": Row(
        "robust_edge_exporters.formats.csr.format:CsrFormat", "robust_edge_exporters.formats.csr.options:OPTIONS"
    ),
    "native": Row(
        "robust_edge_exporters.formats.native.format:NativeFormat",
        "robust_edge_exporters.formats.native.options:OPTIONS",
    ),
    "onnx": Row(
        "robust_edge_exporters.formats.onnx.format:OnnxFormat", "robust_edge_exporters.formats.onnx.options:OPTIONS"
    ),
    "onnx-cuda": Row("robust_edge_exporters.formats.onnx_cuda.format:OnnxCudaFormat"),
    "tensorrt": Row(
        "robust_edge_exporters.formats.tensorrt.format:TensorRtFormat",
        "robust_edge_exporters.formats.onnx.options:OPTIONS",
    ),
}
"""Name of the format, as in the manifest, to its row."""


def format_named(name: str) -> Format:
    """The format of that name.

    Raises:
        InputError: this release has no such format.
    """
    found: Format = resolve(_row(name).format)()
    return found


def options_of(name: str) -> tuple[FormatOption, ...]:
    """The options that only this format has.

    Raises:
        InputError: this release has no such format.
    """
    row = _row(name)
    found: tuple[FormatOption, ...] = resolve(row.options) if row.options else ()
    return found


def all_options() -> tuple[FormatOption, ...]:
    """The options of all formats; one that several formats share is listed once."""
    return tuple(dict.fromkeys(option for name in FORMATS for option in options_of(name)))


def _row(name: str) -> Row:
    if name not in FORMATS:
        raise unknown_name("artifact format", name, FORMATS)
    return FORMATS[name]
