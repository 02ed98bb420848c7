"""The graph of integers that a bundle of the int8 engine computes, read back from its own files.

The operators and the codings of the tensors come from the graph without weights, as at the export; every weight, bias,
multiplier and shift of a channel comes from `weights.bin`, where the tables of `model.c` say that it lies, and what the
channels of a tensor share from these tables.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from robust_edge_exporters.formats.onnx.without_weights import GRAPH, with_random_weights
from robust_edge_exporters.native import ir
from robust_edge_exporters.native.geometry import Window, whole_units
from robust_edge_exporters.native.importer import import_model
from robust_edge_exporters.native.int8 import ops
from robust_edge_exporters.native.int8.arithmetic import Requantisation
from robust_edge_exporters.native.int8.calibrate import Ranges
from robust_edge_exporters.native.int8.quantise import prepared, quantise
from robust_edge_exporters.native.kernels.channel_records import RECORD, WIDE_RECORD, read_records
from robust_edge_exporters.native.kernels.linear_codes import LOGIT
from robust_edge_exporters.native.weights import ESCAPE
from robust_edge_runtimes.core.errors import BundleError, ExportError
from robust_edge_runtimes.formats.native.engine import SOURCE, WEIGHTS

RANGES = "ranges"
"""Property of the graph without weights: a JSON object of the lowest and the highest value of each tensor."""
LAYER = re.compile(r"^static const struct \w+ layer(\d+) = \{(.*)\};$", re.MULTILINE)
FIELD = re.compile(
    r"\.(?:conv\.|requantisation\.)?"
    r"(values|starts|columns|channels|records|wide|down|residual_multiplier) = (\d{1,18})\b"
)
SEGMENTS = re.compile(r"^    \{((?:\d+, ){12})\w+, [01]\},$", re.MULTILINE)


def with_ranges(program: Any, ranges: Ranges) -> Any:
    """Add the ranges of the tensors to a graph without weights, if its network computes with integers."""
    if ranges:
        onnx.helper.set_model_props(program, {RANGES: json.dumps(dict(ranges), sort_keys=True)})
    return program


def recorded_ranges(folder: Path) -> Ranges | None:
    """The ranges of the tensors that the bundle in a folder records; None if it records none that can be read."""
    try:
        program = onnx.load(str(folder / GRAPH), load_external_data=False)
        text = {item.key: item.value for item in program.metadata_props}[RANGES]
        return _parsed(text)
    except Exception:  # whatever the bytes provoke; the comparison of the files names the difference
        return None


def _parsed(text: str) -> Ranges:
    return {name: (float(low), float(high)) for name, (low, high) in json.loads(text).items()}


def int8_graph_of(folder: Path) -> ops.Int8Graph:
    """The graph of integers of the bundle in a folder.

    Raises:
        BundleError: the files are not those of an export of this release.
    """
    try:
        network = _structure(folder / GRAPH)
        data, source = (folder / WEIGHTS).read_bytes(), (folder / SOURCE).read_text(encoding="utf-8")
        layers, segments = layer_tables(source), segment_tables(source)
        first, *others = network.graph.ops
        read = [
            _with_weights(op, _Layer(data, layers.get(index, {}), segments)) if isinstance(op, ir.Weighted) else op
            for index, op in enumerate(others)
        ]
    except (ExportError, ValueError, KeyError, IndexError, OSError) as cause:
        raise BundleError(
            f"{folder}: the network of integers cannot be read from {GRAPH}, {SOURCE} and {WEIGHTS} ({cause}); export "
            "the bundle again"
        ) from cause
    return replace(network, graph=network.graph.with_ops([first, *read]))


def _structure(path: Path) -> ops.Int8Graph:
    """The graph with the right operators and codings, and with weights that mean nothing."""
    program = onnx.load(str(path), load_external_data=False)
    ranges = {item.key: item.value for item in program.metadata_props}.get(RANGES)
    if ranges is None:
        raise BundleError(f"{path} has no ranges of tensors; export the bundle again")
    return quantise(prepared(import_model(with_random_weights(program), path.name)), _parsed(ranges))


def layer_tables(source: str) -> dict[int, dict[str, int]]:
    """The fields that say where weights lie, of each layer's table that has weights, by the number of the layer."""
    found = {
        int(number): {name: int(value) for name, value in FIELD.findall(text)} for number, text in LAYER.findall(source)
    }
    return {number: fields for number, fields in found.items() if "values" in fields}


def segment_tables(source: str) -> dict[int, tuple[int, ...]]:
    """The numbers of each table of segments, by their field `starts`."""
    rows = [tuple(int(number) for number in text.split(",")[:12]) for text in SEGMENTS.findall(source)]
    return {row[3]: row for row in rows}


@dataclass(frozen=True)
class _Layer:
    """Where the numbers of a layer lie.

    Attributes:
        data: the weights file.
        fields: of the layer's table.
        segments: all tables of segments.
    """

    data: bytes
    fields: Mapping[str, int]
    segments: Mapping[int, tuple[int, ...]]

    def array(self, field: str, dtype: npt.DTypeLike, count: int) -> npt.NDArray[Any]:
        """Numbers or records from a field's offset on."""
        return np.frombuffer(self.data, dtype, count, self.fields[field])

    def words(self, outputs: int, window: Window) -> npt.NDArray[np.int32]:
        """(outputs, positions) words of four weights; those that are not stored are zero.

        Args:
            outputs: number of output channels, of which each segment has the same number; in kernel `columns` an output
                channel has a segment for as many filter columns as the stride, from the last to the first.
            window: of the convolution.
        """
        coded, coded_bytes, entries, _, _, segments, _, _, positions, *_ = self.segments[self.fields["starts"]]
        numbers = decoded(np.frombuffer(self.data, np.uint8, coded_bytes, coded))
        columns = self.fields.get("columns", 1)
        together = outputs * columns // segments
        values = self.array("values", "<i4", entries * together).reshape(entries, together)
        words = np.zeros((segments, positions, together), "<i4")
        place = entry = 0
        for row in words:
            count = int(numbers[place])
            gaps = numbers[place + 1 : place + 1 + count]
            row[np.cumsum(gaps + 1) - 1] = values[entry : entry + count]
            place, entry = place + 1 + count, entry + count
        if (place, entry) != (len(numbers), entries):
            raise ValueError(f"{len(numbers)} positions where {place} are read")
        stride = window.strides[1] if "columns" in self.fields else 1
        segment = words.transpose(0, 2, 1).reshape(outputs, columns, positions // stride, stride)[:, ::-1]
        by_column = segment.transpose(0, 2, 1, 3).reshape(outputs, positions // stride, columns * stride)
        if by_column[..., window.kernel[1] :].any():
            raise ValueError("weights beyond the filters")
        found = by_column[..., : window.kernel[1]].reshape(outputs, -1)
        return np.ascontiguousarray(found)  # of a single segment it is a view, whose bytes cannot be read


def decoded(stream: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """The numbers of a stream that `weights.coded` encodes."""
    ends = np.flatnonzero(stream != ESCAPE)
    escapes: npt.NDArray[np.int64] = np.diff(ends, prepend=-1) - 1
    return ESCAPE * escapes + stream[ends].astype(np.int64)


def _with_weights(op: ir.Weighted, layer: _Layer) -> ir.Op:
    if isinstance(op, ops.QuantConv):
        if "channels" in layer.fields:
            weight = stem_weight(op, layer.words(-(-len(op.weight) // ops.WORD) * ops.WORD, op.window))
        elif "starts" in layer.fields:
            weight = conv_weight(op, layer.words(-(-len(op.weight) // ops.WORD) * ops.WORD, op.window))
        else:
            weight = depthwise_weight(op, layer)
        r = _read(op.requantisation, layer, len(op.weight))
        return replace(op, weight=weight, bias=r.bias, requantisation=r)
    assert isinstance(op, ops.QuantLinear)
    weight = linear_weight(op, layer)
    if op.requantisation is None:
        records = layer.array("records", LOGIT, len(op.weight))
        bias = records["bias"].astype(np.int64)
        return replace(op, weight=weight, bias=bias, scales=records["scale"].astype(np.float32))
    r = _read(op.requantisation, layer, len(op.weight))
    return replace(op, weight=weight, bias=r.bias, requantisation=r)


def _read(r: Requantisation, layer: _Layer, outputs: int) -> Requantisation:
    records = layer.array("records", WIDE_RECORD if layer.fields["wide"] else RECORD, outputs)
    return read_records(r, records, layer.fields["down"], layer.fields["residual_multiplier"])


def conv_weight(op: ops.QuantConv, words: npt.NDArray[np.int32]) -> npt.NDArray[np.int8]:
    """(O, I/groups, kh, kw) of words in the order of `conv_blocks.weight_words`."""
    outputs, inputs, *kernel = op.weight.shape
    taps = words.view(np.int8).reshape(len(words), -1, kernel[0] * kernel[1], ops.WORD)
    padded = taps.transpose(0, 1, 3, 2).reshape(len(words), -1, *kernel)
    weight = np.empty(op.weight.shape, np.int8)
    for group, rows in enumerate(np.split(np.arange(outputs), op.groups)):
        start = group * inputs % padded.shape[1]
        weight[rows] = padded[rows, start : start + inputs]
    return nothing_else(weight, words.view(np.int8))


def stem_weight(op: ops.QuantConv, words: npt.NDArray[np.int32]) -> npt.NDArray[np.int8]:
    """(O, I, kh, kw) of words in the order of `conv_stem.ConvStem.stored_words`."""
    outputs, inputs, *kernel = op.weight.shape
    taps = words.view(np.int8)[:outputs, : math.prod(op.weight.shape[1:])]
    return nothing_else(taps.reshape(outputs, *kernel, inputs).transpose(0, 3, 1, 2), words.view(np.int8))


def depthwise_weight(op: ops.QuantConv, layer: _Layer) -> npt.NDArray[np.int8]:
    """(O, 1, kh, kw) of what `depthwise_codes.pack` writes."""
    channels, _, height, width = op.weight.shape
    words, fours = (-(-size // ops.WORD) for size in (channels, height))
    shape = (words, fours, width, ops.WORD, ops.WORD)
    values = layer.array("values", np.int8, math.prod(shape)).reshape(shape)
    padded = values.transpose(0, 3, 1, 4, 2).reshape(words * ops.WORD, 1, fours * ops.WORD, width)
    return nothing_else(padded[:channels, :, :height], values)


def linear_weight(op: ops.QuantLinear, layer: _Layer) -> npt.NDArray[np.int8]:
    """(M, K) of rows in the order of `linear_codes.by_word`."""
    outputs, sizes = len(op.weight), [(-(-channels // ops.WORD), channels, pixels) for channels, pixels in op.parts]
    if "starts" in layer.fields:
        rows = layer.words(outputs, Window((1, 1))).view(np.int8)
    else:
        width = ops.WORD * whole_units(sum(words * pixels for words, _, pixels in sizes))
        rows = layer.array("values", np.int8, outputs * width).reshape(outputs, width)
    place, parts = 0, []
    for words, channels, pixels in sizes:
        part = rows[:, place : place + words * pixels * ops.WORD].reshape(outputs, words, pixels, ops.WORD)
        planes = part.transpose(0, 1, 3, 2).reshape(outputs, -1, pixels)[:, :channels]
        parts.append(planes.reshape(outputs, -1))
        place += words * pixels * ops.WORD
    return nothing_else(np.concatenate(parts, axis=1), rows)


def nothing_else(weight: npt.NDArray[np.int8], stored: npt.NDArray[np.int8]) -> npt.NDArray[np.int8]:
    """`weight`, unless there are others among what is stored: kernels multiply what fills up words, too."""
    if np.count_nonzero(weight) != np.count_nonzero(stored):
        raise ValueError("weights beyond the filters")
    return weight
