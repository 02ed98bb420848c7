"""What an artifact of the sparse engine holds: the values in `weights.bin`, found by the tables of `model.c`."""

from __future__ import annotations

import re

import numpy as np

from robust_edge_exporters.artifact import Contents
from robust_edge_exporters.formats.native.sparsity import counted_once
from robust_edge_exporters.native.weights import FORMAT_VERSION, MAGIC, ValueType, stored_type
from robust_edge_runtimes.core.bundle import Bundle
from robust_edge_runtimes.core.errors import BundleError
from robust_edge_runtimes.core.manifest import LayerCount
from robust_edge_runtimes.formats.native.engine import WEIGHTS

PRECISIONS: dict[ValueType, str] = {np.float32: "fp32", np.float16: "fp16", np.int8: "int8"}
TABLE = re.compile(r"static const struct \w+ \w+ = \{")
CHANNELS = re.compile(r"static const struct layer_channels ")
VALUES, RECORDS = re.compile(r"\.values = (\d{1,18}),"), re.compile(r"\.(?:bias|records) = (\d{1,18})\b")
"""In the table of a layer with weights: its values lie in the weights file from one byte offset to the other."""


def contents_of(bundle: Bundle) -> Contents:
    """Count the non-zero values of each layer in `weights.bin`.

    The number of all weights of a layer is that of the manifest, since zeros are not stored.

    Raises:
        BundleError: the files are not of this format, or do not have the layers that the manifest names.
    """
    data, layers = (bundle.path / WEIGHTS).read_bytes(), bundle.manifest.layers
    kind = stored_type(data)
    if kind is None:
        raise BundleError(
            f"{bundle.path / WEIGHTS} is not a weights file of version {FORMAT_VERSION} ({MAGIC.decode()})"
        )
    source = bundle.artifact_path.read_text(encoding="utf-8", errors="replace")
    tables = (line for line in source.splitlines() if TABLE.match(line) and not CHANNELS.match(line))
    found = ((VALUES.findall(line), RECORDS.findall(line)) for line in tables)
    sections = [(int(values[-1]), int(records[-1])) for values, records in found if values and records]
    if len(sections) != len(layers):
        raise BundleError(f"{bundle.artifact_path} has {len(sections)} layers with weights, the manifest {len(layers)}")
    if any(not 0 <= first <= end <= len(data) for first, end in sections):
        raise BundleError(f"{bundle.artifact_path} reads weights beyond the end of {WEIGHTS}")
    counts = [_nonzeros(data[first:end], kind) for first, end in sections]
    return Contents(
        sparsity=counted_once(
            LayerCount(layer.name, layer.weights, count) for layer, count in zip(layers, counts, strict=True)
        ),
        precision=PRECISIONS[kind],
    )


def _nonzeros(section: bytes, kind: ValueType) -> int:
    """Padding behind the values is zero."""
    width = np.dtype(kind).itemsize
    return int(
        np.count_nonzero(np.frombuffer(section[: len(section) // width * width], np.dtype(kind).newbyteorder("<")))
    )
